// What follows a normalization in the same pass: activations, a residual, and what backward makes of them.
#define EIGEN_USE_THREADS
#include "finite_differences.hpp"
#include "fused.hpp"

namespace batchnorm::test {
namespace {

TEST(Fusion, ReluMatchesTheOracle) {
  expect_fused_matches_oracle<float>(Relu());
  expect_fused_matches_oracle<double>(Relu());
}
TEST(Fusion, LeakyReluMatchesTheOracle) { expect_fused_matches_oracle<float>(LeakyRelu(0.125)); }
TEST(Fusion, ClippedReluMatchesTheOracle) { expect_fused_matches_oracle<float>(ClippedRelu(1)); }
TEST(Fusion, AnActivationKnownFromItsOutputMatchesTheOracle) {
  for (const Layout& layout : fused_layouts()) {
    expect_fused_matches_oracle<float>(layout, OwnRelu(), Residual::added);
  }
}
TEST(Fusion, IdentityWithAResidualMatchesTheOracle) {
  for (const Layout& layout : fused_layouts()) {
    expect_fused_matches_oracle<float>(layout, Identity(), Residual::added);
  }
}
TEST(Fusion, TheSameBitsForAnyNumberOfThreads) {
  Eigen::ThreadPool pool(3);
  const Eigen::ThreadPoolDevice device(&pool, 3);
  for (const Layout& layout :
       {Layout{{20011, 17, 1}}, Layout{{16, 33, 625}}, Layout{{5, 6, 33001}}, Layout{{600, 64, 9}},
        Layout{{300, 1500, 1}}, Layout{{2500, 3, 33}}, Layout{{20, 2100, 25}}}) {
    for (const Residual residual : {Residual::none, Residual::added}) {
      const auto p = fused_problem<float>(layout, Relu(), residual);
      const Fused<float> serial = run_fused(p, Relu()), shared = run_fused(p, Relu(), device);
      std::apply(
          [&](const auto&... a) {
            std::apply([&](const auto&... b) { EXPECT_TRUE((same_bits(a, b) && ...)) << text(layout); }, shared.all());
          },
          serial.all());
    }
  }
}

/// A byte then holds bits of several runs, of several parts.
TEST(Fusion, RunsOfLessThanAByte) {
  using Gaps = Eigen::Map<const Eigen::MatrixXf, 0, Eigen::OuterStride<>>;
  Eigen::ThreadPool pool(2);
  const Eigen::ThreadPoolDevice device(&pool, 3);
  const Index channels = 533333;
  for (const Index rows : {2, 3, 5, 7, 9}) {
    const Eigen::MatrixXf memory = Eigen::MatrixXf::Random(rows + 1, channels);
    const Gaps x(memory.data(), rows, channels, Eigen::OuterStride<>(rows + 1));
    const Eigen::MatrixXf z = Eigen::MatrixXf::Random(rows, channels), dy = Eigen::MatrixXf::Random(rows, channels);
    Eigen::MatrixXf y, dx, dz, shared_dz;
    BatchNorm<float, Relu> layer(channels);
    layer.forward_add(x, z, y);
    layer.backward_add(x, dy, dx, dz);
    EXPECT_EQ(dz, (y.array() > 0).select(dy, 0.f).matrix()) << rows;
    layer.forward_add(device, x, z, y);
    layer.backward_add(device, x, dy, dx, shared_dz);
    EXPECT_EQ(shared_dz, dz) << rows;
  }
}

using Table = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(Fusion, FiniteDifferences) {
  const Index rows = 9, channels = 3;
  Random random(5);
  const auto table = [&] {
    return Table(random.vector<double>(rows * channels).reshaped<Eigen::RowMajor>(rows, channels));
  };
  const Table x = table(), z = table(), weights = table();
  BatchNorm<double, LeakyRelu> layer(channels, {}, LeakyRelu(0.3));
  layer.gamma() = random.vector<double>(channels, 1, 0.5);
  layer.beta() = random.vector<double>(channels);
  Table y, dx, dz;
  layer.forward_add(x, z, y);
  layer.backward_add(x, weights, dx, dz);
  const auto loss = [&](const Table& of_x, const Table& of_z) {
    BatchNorm<double, LeakyRelu> same = layer;
    Table result;
    same.forward_add(of_x, of_z, result);
    return result.cwiseProduct(weights).sum();
  };
  const auto as_table = [&](const Eigen::VectorXd& v) { return Table(v.reshaped<Eigen::RowMajor>(rows, channels)); };
  const Eigen::VectorXd flat_x = x.reshaped<Eigen::RowMajor>(), flat_z = z.reshaped<Eigen::RowMajor>();
  const auto by_x = finite_differences([&](const Eigen::VectorXd& v) { return loss(as_table(v), z); }, flat_x, 1e-4);
  const auto by_z = finite_differences([&](const Eigen::VectorXd& v) { return loss(x, as_table(v)); }, flat_z, 1e-4);
  EXPECT_TRUE(dx.isApprox(as_table(by_x), 1e-8));
  EXPECT_TRUE(dz.isApprox(as_table(by_z), 1e-8));
}

// ---- Single values.

template <class Act>
float activated(const Act& activation, float v) {
  BatchNorm<float, Act> layer(1, {.epsilon = 0}, activation);
  layer.eval();
  Eigen::MatrixXf y;
  layer.infer(Eigen::MatrixXf::Constant(1, 1, v).eval(), y);
  return y(0);
}

TEST(Activations, SingleValues) {
  constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(activated(Relu(), 2), 2);
  EXPECT_EQ(activated(Relu(), -2), 0);
  EXPECT_FALSE(std::signbit(activated(Relu(), -2)));
  EXPECT_EQ(activated(Relu(), infinity), infinity);
  EXPECT_EQ(activated(Relu(), -infinity), 0);
  EXPECT_TRUE(std::isnan(activated(Relu(), nan)));
  EXPECT_EQ(activated(LeakyRelu(0.25), -2), -0.5f);
  EXPECT_EQ(activated(LeakyRelu(0.25), infinity), infinity);
  EXPECT_EQ(activated(LeakyRelu(0.25), -infinity), -infinity);
  EXPECT_TRUE(std::isnan(activated(LeakyRelu(), nan)));
  EXPECT_EQ(activated(ClippedRelu(), 5), 5);
  EXPECT_EQ(activated(ClippedRelu(), 7), 6);
  EXPECT_EQ(activated(ClippedRelu(), infinity), 6);
  EXPECT_EQ(activated(ClippedRelu(), -1), 0);
  EXPECT_TRUE(std::isnan(activated(ClippedRelu(), nan)));
}

TEST(Activations, DeadUnitsHaveNoGradient) {
  BatchNorm<float, Relu> layer(2);
  layer.beta() << -100, 100;  // never on; always on
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(300, 2), dy = Eigen::MatrixXf::Random(300, 2);
  Eigen::MatrixXf y, dx;
  layer.forward(x, y);
  layer.backward(x, dy, dx);
  EXPECT_TRUE((y.col(0).array() == 0).all());
  EXPECT_TRUE((dx.col(0).array() == 0).all());
  EXPECT_EQ(layer.gamma_gradient()[0], 0);
  EXPECT_EQ(layer.beta_gradient()[0], 0);
  EXPECT_NEAR(layer.beta_gradient()[1], dy.col(1).cast<double>().sum(), 1e-5);
}

TEST(Activations, RefuseWhatDoesNotFit) {
  EXPECT_EQ(error_of([] { LeakyRelu{-0.5}; }), "batchnorm::LeakyRelu: slope is -0.5; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] { LeakyRelu{std::numeric_limits<double>::quiet_NaN()}; }),
            "batchnorm::LeakyRelu: slope is nan; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] { ClippedRelu{0}; }), "batchnorm::ClippedRelu: cap is 0; it must be finite and positive");
  EXPECT_EQ(error_of([] { ClippedRelu{std::numeric_limits<double>::infinity()}; }),
            "batchnorm::ClippedRelu: cap is inf; it must be finite and positive");
}

/// softplus-like: what a user may write, computed from v and with constants of its own.
struct HardSwitch {
  std::array<double, 2> values() const { return {0.5, 2}; }
  template <class V>
  static void apply(V& v, const V* c) {
    const V above = v * c[1];
    v = v > c[0] - c[0] ? above : v - v;
  }
  template <class V>
  static void differentiate(const V& v, V& g, const V* c) {
    const V above = g * c[1];
    g = v > c[0] - c[0] ? above : g - g;
  }
};

TEST(Activations, MayBeTheUsersOwn) {
  BatchNorm<float, HardSwitch> own(5);
  BatchNorm<float, Relu> relu(5);
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(300, 5), dy = Eigen::MatrixXf::Random(300, 5);
  Eigen::MatrixXf y, dx, relu_y, relu_dx;
  own.forward(x, y);
  own.backward(x, dy, dx);
  relu.forward(x, relu_y);
  relu.backward(x, dy, relu_dx);
  EXPECT_EQ(y, 2 * relu_y);
  EXPECT_TRUE(dx.isApprox(2 * relu_dx, 1e-6f));
}

// ---- In place, and what is refused.

TEST(Fusion, InPlace) {
  const auto p = fused_problem<float>({{33, 64, 1}}, Relu(), Residual::added);
  const Fused<float> expected = run_fused(p, Relu());
  const auto map = [&](auto& values) { return tensor<3, Eigen::RowMajor>(values, p.layout); };
  BatchNorm<float, Relu> layer(64);
  layer.gamma() = p.gamma;
  layer.beta() = p.beta;
  const auto x = map(p.x);
  Flat<float> of_y = p.z, of_dy = p.dy, of_dx = p.x;
  auto y = map(of_y), dy = map(of_dy), dx = map(of_dx);
  layer.forward_add(x, y, y);
  EXPECT_TRUE(same_bits(of_y, expected.y));
  layer.backward_add(dx, dy, dx, dy);
  EXPECT_TRUE(same_bits(of_dx, expected.dx));
  EXPECT_TRUE(same_bits(of_dy, expected.dz));
  of_dx = p.x;
  of_dy = p.dy;
  layer.backward_add(dx, dy, dy, dx);
  EXPECT_TRUE(same_bits(of_dy, expected.dx));
  EXPECT_TRUE(same_bits(of_dx, expected.dz));
}

class FusionErrors : public testing::Test {
 protected:
  using Matrix = Eigen::MatrixXf;
  FusionErrors() { layer.forward_add(x, z, y); }
  template <class F>
  std::string error_without_change(const F& f) {
    const Matrix before_y = y, before_dx = dx, before_dz = dz;
    const std::string text = error_of(f);
    EXPECT_EQ(y, before_y);
    EXPECT_EQ(dx, before_dx);
    EXPECT_EQ(dz, before_dz);
    EXPECT_EQ(layer.batches_seen(), 1);
    EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXf::Zero(3));
    return text;
  }
  BatchNorm<float, Relu> layer{3};
  const Matrix x = Matrix::Random(8, 3), z = Matrix::Random(8, 3), dy = Matrix::Random(8, 3),
               small = Matrix::Random(7, 3);
  Matrix y, dx = Matrix::Zero(8, 3), dz = Matrix::Zero(8, 3);
};

TEST_F(FusionErrors, Shapes) {
  EXPECT_EQ(error_without_change([&] { layer.forward_add(x, small, y); }),
            "batchnorm::forward_add: z is 7x3; x is 8x3");
  EXPECT_EQ(error_without_change([&] { layer.infer_add(x, small, y); }), "batchnorm::infer_add: z is 7x3; x is 8x3");
  EXPECT_EQ(error_without_change([&] { layer.backward_add(x, small, dx, dz); }),
            "batchnorm::backward_add: dy is 7x3; x is 8x3");
  BatchNorm<float, OwnRelu> own(3);
  own.forward_add(x, z, y);
  EXPECT_EQ(error_without_change([&] { own.backward_add(x, small, dy, dx, dz); }),
            "batchnorm::backward_add: y is 7x3; x is 8x3");
  BatchNorm<float> plain(3);
  Matrix other;
  plain.forward(x, other);
  EXPECT_EQ(error_of([&] { plain.backward_parameters(x, small); }),
            "batchnorm::backward_parameters: dy is 7x3; x is 8x3");
}

TEST_F(FusionErrors, AnotherKindOfForward) {
  const Matrix weights = Matrix::Ones(8, 1);
  EXPECT_EQ(error_without_change([&] { layer.backward(x, dy, dx); }),
            "batchnorm::backward: the last forward was forward_add, not forward");
  EXPECT_EQ(error_without_change([&] { layer.backward_parameters(x, dy); }),
            "batchnorm::backward_parameters: the last forward was forward_add, not forward");
  EXPECT_EQ(error_without_change([&] { layer.backward_weighted(x, weights, dy, dx); }),
            "batchnorm::backward_weighted: the last forward was forward_add, not forward_weighted");
  BatchNorm<float, Relu> other(3);
  EXPECT_EQ(error_of([&] { other.backward_add(x, dy, dx, dz); }), "batchnorm::backward_add: there has been no forward");
}

std::string overlap_of(const std::string& output, const std::string& input) {
  return "batchnorm::backward_add: " + output + " overlaps " + input + "; it must be the same memory or lie apart";
}

TEST_F(FusionErrors, Overlap) {
  Eigen::VectorXf memory = Eigen::VectorXf::Random(32);
  const auto at = [&](Index offset) { return Eigen::Map<Matrix>(memory.data() + offset, 8, 3); };
  auto first = at(0), second = at(1);
  EXPECT_EQ(error_without_change([&] { layer.backward_add(x, dy, dx, dx); }),
            "batchnorm::backward_add: dx overlaps dz; it must lie apart");
  EXPECT_EQ(error_without_change([&] { layer.backward_add(x, dy, first, second); }),
            "batchnorm::backward_add: dx overlaps dz; it must lie apart");
  EXPECT_EQ(error_without_change([&] { layer.backward_add(x, first, second, dz); }), overlap_of("dx", "dy"));
  EXPECT_EQ(error_without_change([&] { layer.backward_add(x, first, dx, second); }), overlap_of("dz", "dy"));
  EXPECT_EQ(error_without_change([&] { layer.backward_add(first, dy, second, dz); }), overlap_of("dx", "x"));
  EXPECT_EQ(error_without_change([&] { layer.backward_add(first, dy, dx, second); }), overlap_of("dz", "x"));
}

// ---- From the output alone.

template <class Scalar, class Act>
void expect_backward_from_output(const Layout& layout, const Act& activation) {
  SCOPED_TRACE(text(layout));
  auto p = fused_problem<Scalar>(layout, activation, Residual::none);
  p.gamma = p.gamma.cwiseAbs().array() + 0.5f;
  const auto batch = oracle::statistics(layout, p.x.template cast<Real>());
  avoid_kinks(p, definition_of(activation), batch);
  for_each_target([&] {
    const Fused<Scalar> s = run_fused(p, activation);
    const auto map = [&](auto& values) { return tensor<3, Eigen::RowMajor>(values, layout); };
    BatchNorm<Scalar, Act> layer(layout.channels(), {}, activation);
    layer.gamma() = p.gamma;
    layer.beta() = p.beta;
    Flat<Scalar> memory = p.x, gradient = p.dy;
    auto y = map(memory), dy = map(gradient);
    layer.forward(y, y);
    layer.backward_from_output(y, dy, dy);
    const Expected trained = expected(p, definition_of(activation), batch, oracle::Statistic::of_the_batch);
    const Real lost = 8;  // digits of xhat, through beta and the slope
    EXPECT_LE(error(gradient, trained.gradients.dx), lost * tolerance<Scalar>(Quantity::tensor, 10));
    EXPECT_LE(error(layer.gamma_gradient(), trained.gradients.dgamma),
              lost * tolerance<Scalar>(Quantity::parameter_gradient, 10));
    EXPECT_EQ(layer.beta_gradient(), s.dbeta);
    layer.eval();
    memory = p.x;
    gradient = p.dy;
    layer.forward(y, y);
    layer.backward_from_output(y, dy, dy, ParameterGradients::skip);
    EXPECT_TRUE(gradient.isApprox(s.eval_dx, Scalar(1e-6)));
  });
}

TEST(FromOutput, MatchesTheOracle) {
  for (const Layout& layout : {Layout{{600, 17, 1}}, Layout{{3, 5, 300}}, Layout{{40, 9, 9}}, Layout{{9, 2, 5000}}}) {
    expect_backward_from_output<float>(layout, LeakyRelu(0.25));
    expect_backward_from_output<double>(layout, LeakyRelu(0.25));
    expect_backward_from_output<float>(layout, Identity());
  }
}

TEST(FromOutput, RefusesWhatCannotBeInverted) {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(8, 3);
  Eigen::MatrixXf y, dx = Eigen::MatrixXf::Constant(8, 3, -77);
  BatchNorm<float, LeakyRelu> layer(3);
  layer.forward(x, y);
  layer.gamma()[1] = 0;
  EXPECT_EQ(error_of([&] { layer.backward_from_output(y, x, dx); }),
            "batchnorm::backward_from_output: gamma[1] is 0; xhat cannot be had from y");
  BatchNorm<float, LeakyRelu> flat(3, {}, LeakyRelu(0));
  flat.forward(x, y);
  EXPECT_EQ(error_of([&] { flat.backward_from_output(y, x, dx); }),
            "batchnorm::backward_from_output: the activation has slope 0; it cannot be inverted");
  EXPECT_EQ(dx, Eigen::MatrixXf::Constant(8, 3, -77));
}

}  // namespace
}  // namespace batchnorm::test
