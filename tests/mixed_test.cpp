// Outputs of another scalar than the inputs: float, bfloat16 and half mix.
#include <bit>
#include <cstdint>

#include "step.hpp"

namespace batchnorm::test {
namespace {

template <class Scalar>
using Tensor = Eigen::Tensor<Scalar, 3, Eigen::RowMajor>;

/// Every output that may have a scalar of its own.
template <class Out>
struct Outputs {
  Tensor<Out> y, dx, eval_y, eval_dx, infer_y;
  Tensor<Out> sum, sum_dx, leaky_dx, weighted_y, weighted_dx, per_sample_y, per_sample_dx, ty, gx, gdy;

  auto of_layer() const { return std::tie(y, dx, eval_y, eval_dx, infer_y); }
  auto of_variants() const {
    return std::tie(sum, sum_dx, leaky_dx, weighted_y, weighted_dx, per_sample_y, per_sample_dx, ty, gx, gdy);
  }
};

template <class Scalar>
Tensor<Scalar> copy_of(const Flat<Scalar>& values, const Layout& layout) {
  return tensor<3, Eigen::RowMajor>(values, layout);
}

/// Weights of 0, 1 and 2.
template <class Scalar>
Tensor<Scalar> some_weights(const Layout& layout) {
  Eigen::DSizes<Index, 3> dims(layout.dims[0], layout.dims[1], layout.dims[2]);
  dims[static_cast<std::size_t>(layout.axis)] = 1;
  Tensor<Scalar> weights(dims);
  for (Index i = 0; i < weights.size(); ++i) weights.data()[i] = static_cast<Scalar>(static_cast<float>(i % 3));
  return weights;
}

template <class Scalar, class Out>
void run_layer(const Problem<Scalar>& p, Outputs<Out>& to) {
  const auto x = copy_of(p.x, p.layout), dy = copy_of(p.dy, p.layout);
  BatchNorm<Scalar> layer = layer_of(p);
  layer.forward(x, to.y);
  layer.backward(x, dy, to.dx);
  layer.infer(x, to.infer_y);
  layer.eval();
  layer.forward(x, to.eval_y);
  layer.backward(x, dy, to.eval_dx);
}

template <class Scalar, class Out>
void run_variants(const Problem<Scalar>& p, Outputs<Out>& to) {
  const auto x = copy_of(p.x, p.layout), dy = copy_of(p.dy, p.layout), weights = some_weights<Scalar>(p.layout);
  const Options options{.epsilon = p.epsilon, .axis = p.layout.axis};
  BatchNorm<Scalar, Relu> relu(p.layout.channels(), options);
  BatchNorm<Scalar, LeakyRelu> leaky(p.layout.channels(), options);
  Tensor<Scalar> y, dz;
  relu.forward_add(x, dy, to.sum);
  relu.forward_add(x, dy, y);
  relu.backward_add(x, dy, to.sum_dx, dz);
  leaky.forward(x, y);
  leaky.backward_from_output(y, dy, to.leaky_dx);
  relu.forward_weighted(x, weights, to.weighted_y);
  relu.backward_weighted(x, weights, dy, to.weighted_dx);
}

template <class Scalar, class Out>
void run_functions(const Problem<Scalar>& p, Outputs<Out>& to) {
  using Parameter = ParameterOf<Scalar>;
  const auto x = copy_of(p.x, p.layout), dy = copy_of(p.dy, p.layout);
  const Options options{.epsilon = p.epsilon, .axis = p.layout.axis};
  const PerSample<Parameter> gamma = p.gamma.transpose().replicate(p.layout.dims[0], 1);
  PerSample<Parameter> dgamma, dbeta;
  Vector<Parameter> ggamma;
  Moments moments;
  collect_moments(x, moments, options);
  normalize_per_sample(x, moments, gamma, gamma, to.per_sample_y, options);
  backward_per_sample(x, dy, moments, gamma, to.per_sample_dx, dgamma, dbeta, options);
  const Direction direction{dy, p.gamma, p.beta};
  jvp(x, moments, p.gamma, direction, to.ty, options);
  double_backward(x, dy, moments, p.gamma, direction, SecondGradients{to.gx, to.gdy, ggamma}, options);
}

/// One scalar is enough for all variants: each takes long to compile.
template <class Scalar>
inline constexpr bool runs_variants = std::is_same_v<Scalar, Eigen::bfloat16>;

template <class Out, class Scalar>
Outputs<Out> outputs(const Problem<Scalar>& p) {
  Outputs<Out> to;
  run_layer(p, to);
  if constexpr (runs_variants<Scalar>) {
    run_variants(p, to);
    run_functions(p, to);
  }
  return to;
}

template <class Out>
bool is_rounded(const Tensor<Out>& narrow, const Tensor<float>& wide) {
  if (narrow.size() == 0 || narrow.size() != wide.size()) return false;
  for (Index i = 0; i < narrow.size(); ++i) {
    if (static_cast<float>(narrow.data()[i]) != static_cast<float>(static_cast<Out>(wide.data()[i]))) return false;
  }
  return true;
}

template <class Narrow, class Wide>
void expect_rounded(const Narrow& narrow, const Wide& wide) {
  std::apply(
      [&](const auto&... of_narrow) {
        std::apply([&](const auto&... of_wide) { EXPECT_TRUE((is_rounded(of_narrow, of_wide) && ...)); }, wide);
      },
      narrow);
}

/// By runs, by columns, by columns that are folded, and by runs that are short and not so short.
std::vector<Layout> layouts() {
  return {{{3, 5, 301}}, {{40, 37, 1}}, {{70, 3, 1}}, {{21, 5, 7}}, {{20, 5, 144}}, {{5, 41, 6}, Order::row_major, 2}};
}

template <class Scalar>
class MixedScalars : public testing::Test {};

using Scalars = testing::Types<float, Eigen::bfloat16, Eigen::half>;
TYPED_TEST_SUITE(MixedScalars, Scalars, );

TYPED_TEST(MixedScalars, EveryOutputIsRoundedOnce) {
  using Narrow = std::conditional_t<std::is_same_v<TypeParam, Eigen::half>, Eigen::bfloat16, Eigen::half>;
  for (const Layout& layout : layouts()) {
    const auto p = random_problem<TypeParam>(layout);
    for_each_target([&] {
      const auto narrow = outputs<Narrow>(p);
      const auto wide = outputs<float>(p);
      expect_rounded(narrow.of_layer(), wide.of_layer());
      if (runs_variants<TypeParam>) expect_rounded(narrow.of_variants(), wide.of_variants());
    });
  }
}

TYPED_TEST(MixedScalars, FloatOutputsHaveTheAccuracyOfFloat) {
  for (const Layout& layout : layouts()) {
    const auto p = random_problem<TypeParam>(layout);
    Outputs<float> to;
    run_layer(p, to);
    const Values x = p.x.template cast<Real>(), dy = p.dy.template cast<Real>();
    const Values gamma = p.gamma.template cast<Real>(), beta = p.beta.template cast<Real>();
    const Real epsilon = static_cast<Real>(p.epsilon);
    const auto batch = oracle::statistics(layout, x);
    const auto flat = [](const Tensor<float>& t) { return Flat<float>::Map(t.data(), t.size()); };
    const auto y = oracle::forward(layout, x, batch, gamma, beta, epsilon);
    const auto dx = oracle::backward(layout, x, dy, batch, gamma, epsilon, oracle::Statistic::of_the_batch).dx;
    EXPECT_LE(error(flat(to.y), y), tolerance<float>(Quantity::tensor, 10));
    EXPECT_LE(error(flat(to.dx), dx), tolerance<float>(Quantity::tensor, 10));
  }
}

template <class Out>
void expect_nan_stays_nan() {
  constexpr std::uint32_t nans[] = {0x7f800001, 0x7fc00000, 0x7fff8000, 0x7fffffff, 0xff800001, 0xffffffff};
  Tensor<float> x(2, 3, 41);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = std::bit_cast<float>(nans[i % 6]);
  const BatchNorm<float> layer(3);
  for_each_target([&] {
    Tensor<Out> y;
    layer.infer(x, y);
    for (Index i = 0; i < y.size(); ++i) ASSERT_TRUE(std::isnan(static_cast<float>(y.data()[i]))) << i;
  });
}

TEST(Mixed, NaNsOfEveryKindStayNaNs) {
  expect_nan_stays_nan<Eigen::bfloat16>();
  expect_nan_stays_nan<Eigen::half>();
}

TEST(Mixed, OutputsOverInputsOfAnotherSizeAreRefused) {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic> memory = Eigen::MatrixXf::Random(8, 4);
  Eigen::Map<Eigen::Matrix<Eigen::bfloat16, Eigen::Dynamic, Eigen::Dynamic>> x(
      reinterpret_cast<Eigen::bfloat16*>(memory.data()), 8, 4);
  BatchNorm<Eigen::bfloat16> layer(4);
  EXPECT_EQ(error_of([&] { layer.forward(x, memory); }),
            "batchnorm::forward: y overlaps x; it must be the same memory or lie apart");
}

}  // namespace
}  // namespace batchnorm::test
