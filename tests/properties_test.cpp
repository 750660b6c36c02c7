// What must hold whatever the numbers: the oracle is asked for units only.
#include <numeric>

#include "finite_differences.hpp"
#include "step.hpp"

namespace batchnorm::test {
namespace {

std::vector<Layout> layouts() {
  return {
      {{300, 17}, Order::row_major, 1}, {{6, 5, 9, 11}, Order::row_major, 1}, {{40, 3, 3, 16}, Order::row_major, -1}};
}

/// Two results for the same problem: both carry an error.
template <class Scalar>
void expect_same(const Problem<Scalar>& p, const Step<Scalar>& expected, const Flat<Scalar>& y, const Flat<Scalar>& dx,
                 Real condition = 10) {
  const Values x = p.x.template cast<Real>(), dy = p.dy.template cast<Real>();
  const Values gamma = p.gamma.template cast<Real>(), beta = p.beta.template cast<Real>();
  const auto epsilon = static_cast<Real>(p.epsilon);
  const auto batch = oracle::statistics(p.layout, x);
  const Values y_unit = oracle::forward(p.layout, x, batch, gamma, beta, epsilon).unit;
  const Values dx_unit =
      oracle::backward(p.layout, x, dy, batch, gamma, epsilon, oracle::Statistic::of_the_batch).dx.unit;
  const Real twice = 2 * tolerance<Scalar>(Quantity::tensor, condition);
  EXPECT_LE(error(y, {expected.y.template cast<Real>(), y_unit}), twice);
  EXPECT_LE(error(dx, {expected.dx.template cast<Real>(), dx_unit}), twice);
}

template <class Scalar>
class Properties : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Properties, Scalars);

TYPED_TEST(Properties, OrderOfTheBatchDoesNotMatter) {
  for (const Layout& layout : layouts()) {
    const auto p = random_problem<TypeParam>(layout);
    const Index samples = layout.dim(0), size = layout.size() / samples;
    std::vector<Index> order(static_cast<std::size_t>(samples));
    std::iota(order.begin(), order.end(), Index(0));
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    const auto shuffle = [&](const Flat<TypeParam>& from, bool back) {
      Flat<TypeParam> to(from.size());
      for (Index n = 0; n < samples; ++n) {
        const Index m = order[static_cast<std::size_t>(n)];
        to.segment((back ? m : n) * size, size) = from.segment((back ? n : m) * size, size);
      }
      return to;
    };
    auto shuffled = p;
    shuffled.x = shuffle(p.x, false);
    shuffled.dy = shuffle(p.dy, false);
    for_each_target([&] {
      const auto s = run_step(shuffled);
      expect_same(p, run_step(p), shuffle(s.y, true), shuffle(s.dx, true));
    });
  }
}

TYPED_TEST(Properties, AConstantAddedToXChangesNothing) {
  for (const Layout& layout : layouts()) {
    auto p = random_problem<TypeParam>(layout);
    p.x = (p.x * TypeParam(64)).round() / TypeParam(64);  // so that the sum below is exact
    auto shifted = p;
    shifted.x += TypeParam(2048);
    for_each_target([&] {
      const auto s = run_step(shifted);
      expect_same(p, run_step(p), s.y, s.dx, 1e5);
      EXPECT_TRUE(s.mean.isApprox((run_step(p).mean.array() + 2048).matrix(), 1e-9));
    });
  }
}

TYPED_TEST(Properties, AFactorOnXDividesDxAndLeavesY) {
  for (const Layout& layout : layouts()) {
    for (const double factor : {0.25, 1024.0, -2.0}) {
      const auto p = random_problem<TypeParam>(layout);
      auto scaled = p;
      scaled.x *= static_cast<TypeParam>(factor);
      scaled.epsilon *= factor * factor;
      if (factor < 0) scaled.gamma = -scaled.gamma;
      for_each_target([&] {
        const auto s = run_step(scaled);
        expect_same(p, run_step(p), s.y, (s.dx * static_cast<TypeParam>(factor)).eval());
      });
    }
  }
}

TYPED_TEST(Properties, DxIsOrthogonalToOneAndToX) {
  for (const Layout& layout : layouts()) {
    auto p = random_problem<TypeParam>(layout);
    p.epsilon = 0;
    const auto batch = oracle::statistics(layout, p.x.template cast<Real>());
    for_each_target([&] {
      const auto s = run_step(p);
      const Index channels = layout.channels();
      Values sum = Values::Zero(channels), sum_abs = sum, sum_x = sum, sum_x_abs = sum;
      for (Index i = 0; i < p.x.size(); ++i) {
        const Index c = layout.channel_of(i);
        const Real dx = s.dx[i], centered = p.x[i] - batch.mean[c];
        sum[c] += dx;
        sum_abs[c] += std::abs(dx);
        sum_x[c] += dx * centered;
        sum_x_abs[c] += std::abs(dx * centered);
      }
      const Real allowed = tolerance<TypeParam>(Quantity::tensor);
      EXPECT_LE((sum / sum_abs).abs().maxCoeff(), allowed);
      EXPECT_LE((sum_x / sum_x_abs).abs().maxCoeff(), allowed);
      EXPECT_GT(sum_abs.minCoeff(), 0);
    });
  }
}

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// A layer on 3 channels, in training or with running statistics of its own.
BatchNorm<double> layer_for_differences(bool is_training, const Eigen::VectorXd& gamma, const Eigen::VectorXd& beta) {
  BatchNorm<double> layer(3, {.epsilon = 0.01});
  layer.gamma() = gamma;
  layer.beta() = beta;
  layer.running_mean() << 0.5, -1, 2;
  layer.running_var() << 0.7, 2, 1.5;
  if (!is_training) layer.eval();
  return layer;
}

TEST(Derivatives, AreThoseOfForward) {
  Random random;
  const Index rows = 11;
  const Eigen::VectorXd x = random.vector<double>(rows * 3, 0.5, 1.5), dy = random.vector<double>(rows * 3);
  const Eigen::VectorXd gamma = random.vector<double>(3, 1), beta = random.vector<double>(3);
  const auto matrix = [&](const Eigen::VectorXd& values) { return Matrix(values.reshaped<Eigen::RowMajor>(rows, 3)); };
  for (const bool is_training : {true, false}) {
    SCOPED_TRACE(is_training ? "training" : "running statistics");
    const auto loss = [&](const Eigen::VectorXd& at, const Eigen::VectorXd& scale, const Eigen::VectorXd& shift) {
      Matrix y;
      layer_for_differences(is_training, scale, shift).forward(matrix(at), y);
      return y.cwiseProduct(matrix(dy)).sum();
    };
    const double step = 1e-3;
    const auto dx = finite_differences([&](const auto& at) { return loss(at, gamma, beta); }, x, step);
    const auto dgamma = finite_differences([&](const auto& at) { return loss(x, at, beta); }, gamma, step);
    const auto dbeta = finite_differences([&](const auto& at) { return loss(x, gamma, at); }, beta, step);
    for_each_target([&] {
      BatchNorm<double> layer = layer_for_differences(is_training, gamma, beta);
      Matrix y, computed;
      layer.forward(matrix(x), y);
      layer.backward(matrix(x), matrix(dy), computed);
      EXPECT_TRUE(computed.isApprox(matrix(dx), 1e-9));
      EXPECT_TRUE(layer.gamma_gradient().isApprox(dgamma, 1e-9));
      EXPECT_TRUE(layer.beta_gradient().isApprox(dbeta, 1e-9));
    });
  }
}

}  // namespace
}  // namespace batchnorm::test
