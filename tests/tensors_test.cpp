// Every type that counts as a tensor, in every kind of memory.
#include <numeric>

#include "step.hpp"

namespace batchnorm::test {
namespace {

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowArray = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColMatrix = Eigen::MatrixXf;

constexpr Index rows = 21, channels = 6;

RowMatrix random_matrix(unsigned seed) {
  return Random(seed).vector<float>(rows * channels, 0.5, 2).reshaped<Eigen::RowMajor>(rows, channels);
}

const RowMatrix x_values = random_matrix(1), dy_values = random_matrix(2);

/// The answers for x_values and dy_values in plain row-major matrices.
struct Answers {
  RowMatrix y, dx, inferred;
};

template <class X, class Dy, class Y, class Dx, class Inferred>
void run(const X& x, const Dy& dy, Y&& y, Dx&& dx, Inferred&& inferred) {
  BatchNorm<float> layer(channels);
  layer.gamma() = Eigen::VectorXf::LinSpaced(channels, -1, 2);
  layer.beta() = Eigen::VectorXf::LinSpaced(channels, 3, 1);
  layer.forward(x, y);
  layer.backward(x, dy, dx);
  layer.infer(x, inferred);
}

const Answers& expected() {
  static const Answers answers = [] {
    Answers a;
    run(x_values, dy_values, a.y, a.dx, a.inferred);
    return a;
  }();
  return answers;
}

template <class Y>
RowMatrix matrix_of(const Y& y) {
  if constexpr (std::is_base_of_v<Eigen::DenseBase<Y>, Y>) {
    return y.matrix();
  } else {
    RowMatrix m(y.dimension(0), y.dimension(1));
    for (typename Y::Index i = 0; i < y.dimension(0); ++i)
      for (typename Y::Index j = 0; j < y.dimension(1); ++j) m(i, j) = y(i, j);
    return m;
  }
}

/// `exact`: where the memory is laid out the same way, without gaps, the answers have the same bits.
template <class Y, class Dx, class Inferred>
void expect_answers(const Y& y, const Dx& dx, const Inferred& inferred, bool exact) {
  const float precision = exact ? 0.f : 1e-6f;
  EXPECT_TRUE(matrix_of(y).isApprox(expected().y, precision));
  EXPECT_TRUE(matrix_of(dx).isApprox(expected().dx, precision));
  EXPECT_TRUE(matrix_of(inferred).isApprox(expected().inferred, precision));
}

template <class Owner>
void expect_owner_works(bool exact) {
  const Owner x = x_values, dy = dy_values;
  Owner y, dx, inferred;
  run(x, dy, y, dx, inferred);
  expect_answers(y, dx, inferred, exact);
}

TEST(Tensors, MatrixAndArray) {
  expect_owner_works<RowMatrix>(true);
  expect_owner_works<RowArray>(true);
  expect_owner_works<ColMatrix>(false);
  expect_owner_works<Eigen::ArrayXXf>(false);
  expect_owner_works<Eigen::Matrix<float, rows, channels>>(false);
  expect_owner_works<Eigen::Matrix<float, rows, channels, Eigen::RowMajor>>(true);
  expect_owner_works<Eigen::Matrix<float, Eigen::Dynamic, channels, Eigen::RowMajor>>(true);
}

TEST(Tensors, MapAndConstMap) {
  RowMatrix y(rows, channels), dx(rows, channels), inferred(rows, channels);
  const auto map = [](RowMatrix& m) { return Eigen::Map<RowMatrix>(m.data(), m.rows(), m.cols()); };
  const Eigen::Map<const RowMatrix> x(x_values.data(), rows, channels);
  const Eigen::Map<const RowArray> x_array(x_values.data(), rows, channels);
  const Eigen::Map<const RowMatrix> dy(dy_values.data(), rows, channels);
  run(x, dy, map(y), map(dx), map(inferred));
  expect_answers(y, dx, inferred, true);
  auto y_map = map(y), dx_map = map(dx), inferred_map = map(inferred);
  y.setZero();
  dx.setZero();
  inferred.setZero();
  run(x_array, dy, y_map, dx_map, inferred_map);
  expect_answers(y, dx, inferred, true);
}

void run_on_refs(const Eigen::Ref<const RowMatrix>& x, const Eigen::Ref<const RowMatrix>& dy, Eigen::Ref<RowMatrix> y,
                 Eigen::Ref<RowMatrix> dx, Eigen::Ref<RowMatrix> inferred) {
  run(x, dy, y, dx, inferred);
}

TEST(Tensors, Ref) {
  RowMatrix y(rows, channels), dx(rows, channels), inferred(rows, channels);
  run_on_refs(x_values, dy_values, y, dx, inferred);
  expect_answers(y, dx, inferred, true);
  RowMatrix wide = RowMatrix::Zero(rows, 5 * channels);
  wide.leftCols(channels) = x_values;
  wide.middleCols(channels, channels) = dy_values;
  const auto block = [&](int k) { return wide.middleCols(k * channels, channels); };
  run_on_refs(block(0), block(1), block(2), block(3), block(4));
  expect_answers(block(2), block(3), block(4), false);
}

/// Blocks of one large matrix, with a frame around each that must stay as it was.
template <class Matrix>
void expect_blocks_work() {
  Matrix frame = Matrix::Constant(rows + 2, 5 * (channels + 1) + 1, -77);
  const auto block = [&](int k) { return frame.block(1, 1 + k * (channels + 1), rows, channels); };
  block(0) = x_values;
  block(1) = dy_values;
  run(block(0), block(1), block(2), block(3), block(4));
  expect_answers(block(2), block(3), block(4), false);
  EXPECT_EQ(matrix_of(block(0)), x_values);
  EXPECT_EQ(matrix_of(block(1)), dy_values);
  for (int k = 0; k < 5; ++k) block(k).setConstant(-77);
  EXPECT_TRUE((frame.array() == -77).all()) << "written outside of the blocks";
}

TEST(Tensors, BlocksOfOneMatrix) {
  expect_blocks_work<RowMatrix>();
  expect_blocks_work<RowArray>();
  expect_blocks_work<ColMatrix>();
}

template <class Matrix>
void expect_outer_strides_work() {
  using Stride = Eigen::OuterStride<>;
  using Map = Eigen::Map<Matrix, Eigen::Unaligned, Stride>;
  for (const Index gap : {0, 1, 3, 16}) {
    SCOPED_TRACE(gap);
    const Index line = (Matrix::IsRowMajor ? channels : rows) + gap,
                size = line * (Matrix::IsRowMajor ? rows : channels);
    std::array<Flat<float>, 5> memory;
    memory.fill(Flat<float>::Constant(size, -77));
    const auto map = [&](std::size_t k) { return Map(memory[k].data(), rows, channels, Stride(line)); };
    map(0) = x_values;
    map(1) = dy_values;
    const Eigen::Map<const Matrix, Eigen::Unaligned, Stride> x(memory[0].data(), rows, channels, Stride(line));
    run(x, map(1), map(2), map(3), map(4));
    expect_answers(map(2), map(3), map(4), false);
    for (std::size_t k = 0; k < 5; ++k) {
      map(k).setConstant(-77);
      EXPECT_TRUE((memory[k] == -77).all()) << "written into the gaps";
    }
  }
}

TEST(Tensors, OuterStrides) {
  expect_outer_strides_work<RowMatrix>();
  expect_outer_strides_work<ColMatrix>();
}

TEST(Tensors, BothAxesOfAStridedMatrix) {
  RowMatrix frame = RowMatrix::Random(2 * channels, rows + 5);
  auto channel_rows = frame.block(channels, 2, channels, rows);
  channel_rows = x_values.transpose();
  BatchNorm<float> by_rows(channels, {.axis = 0}), by_columns(channels);
  RowMatrix y, expected_y;
  by_rows.forward(channel_rows, y);
  by_columns.forward(x_values, expected_y);
  EXPECT_TRUE(y.isApprox(expected_y.transpose(), 1e-6f));
}

template <class Tensor>
Tensor tensor_of(const RowMatrix& m) {
  Tensor t(rows, channels);
  for (typename Tensor::Index i = 0; i < rows; ++i)
    for (typename Tensor::Index j = 0; j < channels; ++j) t(i, j) = m(i, j);
  return t;
}

template <class Tensor>
void expect_tensor_works(bool exact) {
  const auto x = tensor_of<Tensor>(x_values), dy = tensor_of<Tensor>(dy_values);
  Tensor y, dx, inferred;
  run(x, dy, y, dx, inferred);
  expect_answers(y, dx, inferred, exact);
}

TEST(Tensors, Tensor) {
  expect_tensor_works<Eigen::Tensor<float, 2, Eigen::RowMajor>>(true);
  expect_tensor_works<Eigen::Tensor<float, 2>>(false);
  expect_tensor_works<Eigen::Tensor<float, 2, Eigen::RowMajor, int>>(true);
}

TEST(Tensors, TensorFixedSize) {
  using Fixed = Eigen::TensorFixedSize<float, Eigen::Sizes<rows, channels>, Eigen::RowMajor>;
  Fixed x, dy, y, dx, inferred;
  x = Eigen::TensorMap<const Eigen::Tensor<float, 2, Eigen::RowMajor>>(x_values.data(), rows, channels);
  dy = Eigen::TensorMap<const Eigen::Tensor<float, 2, Eigen::RowMajor>>(dy_values.data(), rows, channels);
  run(x, dy, y, dx, inferred);
  expect_answers(y, dx, inferred, true);
}

TEST(Tensors, TensorMapAndConstTensorMap) {
  using Tensor = Eigen::Tensor<float, 2, Eigen::RowMajor>;
  const Eigen::TensorMap<const Tensor> x(x_values.data(), rows, channels);
  const Eigen::TensorMap<Eigen::Tensor<const float, 2, Eigen::RowMajor>> dy(dy_values.data(), rows, channels);
  RowMatrix y(rows, channels), dx(rows, channels), inferred(rows, channels);
  const auto map = [](RowMatrix& m) { return Eigen::TensorMap<Tensor>(m.data(), m.rows(), m.cols()); };
  run(x, dy, map(y), map(dx), map(inferred));
  expect_answers(y, dx, inferred, true);
  Tensor owned_y, owned_dx;
  run(x, dy, owned_y, owned_dx, map(inferred));
  expect_answers(owned_y, owned_dx, inferred, true);
}

TEST(Tensors, MixedTypesOfOneOrder) {
  Eigen::Tensor<float, 2, Eigen::RowMajor> y, inferred;
  RowArray dx;
  run(x_values, tensor_of<Eigen::Tensor<float, 2, Eigen::RowMajor>>(dy_values), y, dx, inferred);
  expect_answers(y, dx, inferred, true);
}

TEST(Tensors, OwningOutputsAreResized) {
  BatchNorm<float> layer(channels);
  RowMatrix y(2, 3), dx(100, 1);
  Eigen::Tensor<float, 2, Eigen::RowMajor> tensor_y(1, 1);
  Eigen::Matrix<float, Eigen::Dynamic, channels, Eigen::RowMajor> half_fixed(1, channels);
  layer.forward(x_values, y);
  layer.backward(x_values, dy_values, dx);
  layer.infer(x_values, tensor_y);
  layer.infer(x_values, half_fixed);
  for (const auto& [height, width] : {std::pair{y.rows(), y.cols()},
                                      {dx.rows(), dx.cols()},
                                      {tensor_y.dimension(0), tensor_y.dimension(1)},
                                      {half_fixed.rows(), half_fixed.cols()}}) {
    EXPECT_EQ(height, rows);
    EXPECT_EQ(width, channels);
  }
}

TEST(Tensors, OutputsOfTheRightSizeKeepTheirMemory) {
  BatchNorm<float> layer(channels);
  RowMatrix y(rows, channels);
  const float* memory = y.data();
  layer.forward(x_values, y);
  EXPECT_EQ(y.data(), memory);
}

/// Every offset within a vector, with untouched memory before and after.
TEST(Tensors, MisalignedMaps) {
  for (const Layout& layout : {Layout{{21, 17}, Order::row_major, 1},
                               {{3, 5, 37}, Order::row_major, 1},
                               {{2, 3, 16}, Order::row_major, 1},
                               {{9, 32}, Order::row_major, 1},
                               {{2, 3, 150}, Order::row_major, 1},
                               {{40, 150}, Order::row_major, 1},
                               {{33, 256}, Order::row_major, 1}}) {
    const auto p = random_problem<float>(layout);
    const Index size = p.x.size(), margin = 32;
    const auto at = [&](Flat<float>& memory, Index offset) {
      return Eigen::TensorMap<Eigen::Tensor<float, 3, Eigen::RowMajor>>(
          memory.data() + margin + offset, layout.dim(0), layout.dim(1), layout.rank() == 3 ? layout.dim(2) : 1);
    };
    for_each_target([&] {
      Flat<float> expected_y(size), expected_dx(size);
      for (const Index offset : {0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15}) {
        SCOPED_TRACE(testing::Message() << text(layout) << ", offset " << offset);
        Flat<float> x = Flat<float>::Constant(size + 3 * margin, -77), dy = x, y = x, dx = x;
        x.segment(margin + offset, size) = p.x;
        dy.segment(margin + offset, size) = p.dy;
        BatchNorm<float> layer = layer_of(p);
        layer.forward(at(x, offset), at(y, offset));
        layer.backward(at(x, offset), at(dy, offset), at(dx, offset));
        auto y_values = y.segment(margin + offset, size), dx_values = dx.segment(margin + offset, size);
        if (offset == 0) {
          expected_y = y_values;
          expected_dx = dx_values;
        }
        EXPECT_TRUE((y_values == expected_y).all());
        EXPECT_TRUE((dx_values == expected_dx).all());
        y_values = dx_values = -77;
        EXPECT_TRUE((y == -77).all() && (dx == -77).all()) << "written outside of the map";
      }
    });
  }
}

/// Outputs at every kind of distance behind their input, within a page of 4096 bytes.
TEST(Tensors, AnyDistanceBetweenInputAndOutput) {
  constexpr Index page = 4096 / sizeof(float);
  for (const Layout& layout : cases()) {
    if (layout.rank() != 3 || layout.order != Order::row_major) continue;
    SCOPED_TRACE(text(layout));
    const auto p = random_problem<float>(layout);
    const Index size = p.x.size(), pages = (size / page + 1) * page;
    for_each_target([&] {
      const Step<float> expected = run_step(p);
      for (const Index distance : {1, 17, 255, 256, 1023}) {
        Flat<float> x(3 * pages + 3 * page), dy = p.dy;
        x.head(size) = p.x;
        auto y = x.segment(pages + distance, size), dx = x.segment(2 * pages + 2 * distance, size);
        const auto map = [&](float* data) {
          return Eigen::TensorMap<Eigen::Tensor<float, 3, Eigen::RowMajor>>(data, layout.dim(0), layout.dim(1),
                                                                            layout.dim(2));
        };
        BatchNorm<float> layer = layer_of(p);
        layer.forward(map(x.data()), map(y.data()));
        layer.backward(map(x.data()), map(dy.data()), map(dx.data()));
        EXPECT_TRUE((y == expected.y).all()) << distance;
        EXPECT_TRUE((dx == expected.dx).all()) << distance;
      }
    });
  }
}

template <class Scalar>
void expect_in_place_gives_the_same_bits(const Layout& layout) {
  SCOPED_TRACE(text(layout));
  const auto p = random_problem<Scalar>(layout);
  const auto run_in_place = [&]<int Options>() {
    const auto map = [&](auto& values) { return tensor<3, Options>(values, layout); };
    const Step<Scalar> expected = run_step(p);
    Flat<Scalar> y = p.x, dx = p.dy, eval_y = p.x, infer_y = p.x, eval_dx = p.dy;
    auto y_map = map(y), dx_map = map(dx), eval_map = map(eval_y), infer_map = map(infer_y), eval_dx_map = map(eval_dx);
    BatchNorm<Scalar> layer = layer_of(p);
    layer.forward(y_map, y_map);
    layer.backward(map(p.x), dx_map, dx_map);
    layer.infer(infer_map, infer_map);
    layer.eval();
    layer.forward(eval_map, eval_map);
    layer.backward(map(p.x), eval_dx_map, eval_dx_map);
    EXPECT_TRUE(same_bits(y, expected.y));
    EXPECT_TRUE(same_bits(dx, expected.dx));
    EXPECT_TRUE(same_bits(infer_y, expected.infer_y));
    EXPECT_TRUE(same_bits(eval_y, expected.eval_y));
    EXPECT_TRUE(same_bits(eval_dx, expected.eval_dx));
    Flat<Scalar> x = p.x;
    auto x_map = map(x);
    BatchNorm<Scalar> over_x = layer_of(p);
    over_x.forward(x_map, y_map);
    over_x.backward(x_map, map(p.dy), x_map);
    EXPECT_TRUE(same_bits(x, expected.dx));
  };
  for_each_target([&] { with_order(layout, run_in_place); });
}

TEST(Tensors, InPlaceGivesTheSameBits) {
  for (const Layout& layout : cases()) {
    if (layout.rank() != 3) continue;
    expect_in_place_gives_the_same_bits<float>(layout);
    expect_in_place_gives_the_same_bits<double>(layout);
  }
}

}  // namespace
}  // namespace batchnorm::test
