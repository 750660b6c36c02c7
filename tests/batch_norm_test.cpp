// The layer: modes, state, gradients, options.
#include <thread>

#include "step.hpp"

namespace batchnorm::test {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;

Matrix random_matrix(Index rows, Index cols, unsigned seed) {
  return Random(seed).vector<float>(rows * cols, 0.5, 2).reshaped<Eigen::RowMajor>(rows, cols);
}

TEST(BatchNorm, StartsInTrainingWithGamma1Beta0) {
  const BatchNorm<float> layer(3);
  EXPECT_TRUE(layer.training());
  EXPECT_EQ(layer.channels(), 3);
  EXPECT_EQ(layer.batches_seen(), 0);
  EXPECT_EQ(layer.gamma(), Eigen::VectorXf::Ones(3));
  EXPECT_EQ(layer.beta(), Eigen::VectorXf::Zero(3));
  EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXf::Zero(3));
  EXPECT_EQ(layer.beta_gradient(), Eigen::VectorXf::Zero(3));
  EXPECT_EQ(layer.running_mean(), Eigen::VectorXd::Zero(3));
  EXPECT_EQ(layer.running_var(), Eigen::VectorXd::Ones(3));
}

TEST(BatchNorm, KeepsItsOptions) {
  const BatchNorm<float> layer(3, {.epsilon = 0.5, .axis = -1, .affine = Affine::shift});
  EXPECT_EQ(layer.options().epsilon, 0.5);
  EXPECT_EQ(layer.options().axis, -1);
  EXPECT_EQ(layer.options().affine, Affine::shift);
}

TEST(BatchNorm, OnlyATrainingForwardMovesTheRunningStatistics) {
  const Matrix x = random_matrix(20, 3, 1);
  Matrix y, dx;
  BatchNorm<float> layer(3);
  layer.forward(x, y);
  const Eigen::VectorXd mean = layer.running_mean(), var = layer.running_var();
  EXPECT_NE(mean, Eigen::VectorXd::Zero(3));
  EXPECT_EQ(layer.batches_seen(), 1);
  layer.backward(x, y, dx);
  layer.infer(x, y);
  layer.eval();
  layer.forward(x, y);
  layer.backward(x, y, dx);
  layer.train();
  EXPECT_EQ(layer.running_mean(), mean);
  EXPECT_EQ(layer.running_var(), var);
  EXPECT_EQ(layer.batches_seen(), 1);
  layer.forward(x, y);
  EXPECT_NE(layer.running_mean(), mean);
  EXPECT_EQ(layer.batches_seen(), 2);
}

TEST(BatchNorm, TrainAndEvalSwitch) {
  const Matrix x = random_matrix(20, 3, 1);
  Matrix trained, evaluated, inferred, again;
  BatchNorm<float> layer(3, {.average = new_weight(0)});
  layer.forward(x, trained);
  layer.eval();
  EXPECT_FALSE(layer.training());
  layer.forward(x, evaluated);
  layer.infer(x, inferred);
  layer.train();
  EXPECT_TRUE(layer.training());
  layer.forward(x, again);
  EXPECT_NE(evaluated, trained);
  EXPECT_EQ(evaluated, inferred);
  EXPECT_EQ(again, trained);
  // With running mean 0 and variance 1.
  EXPECT_TRUE(evaluated.isApprox(x / std::sqrt(1 + 1e-5f), 1e-6f));
}

TEST(BatchNorm, WithoutRunningStatisticsInferenceUsesTheBatch) {
  const Matrix x = random_matrix(20, 3, 1);
  Matrix trained, evaluated, inferred;
  BatchNorm<float> layer(3, {.average = none()});
  layer.forward(x, trained);
  layer.eval();
  layer.forward(x, evaluated);
  layer.infer(x, inferred);
  EXPECT_EQ(evaluated, trained);
  EXPECT_EQ(inferred, trained);
  layer.train();
  layer.forward(Matrix::Constant(20, 3, std::numeric_limits<float>::quiet_NaN()).eval(), trained);
  EXPECT_EQ(layer.running_mean(), Eigen::VectorXd::Zero(3));
  EXPECT_EQ(layer.running_var(), Eigen::VectorXd::Ones(3));
}

TEST(BatchNorm, MomentsAreThoseOfTheLastForward) {
  const Matrix x = random_matrix(20, 3, 1), other = random_matrix(30, 3, 2);
  Matrix y;
  Moments moments(3);
  collect_moments(x, moments);
  BatchNorm<float> layer(3);
  layer.forward(other, y);
  layer.forward(x, y);
  layer.infer(other, y);
  EXPECT_EQ(layer.moments().count, 20);
  EXPECT_EQ(layer.moments().mean, moments.mean);
  EXPECT_EQ(layer.moments().m2, moments.m2);
  layer.eval();
  layer.forward(other, y);
  EXPECT_EQ(layer.moments().mean, layer.running_mean());
  EXPECT_EQ(layer.moments().var(), layer.running_var());
}

TEST(BatchNorm, SavedAndRestoredGivesTheSameAnswers) {
  const Options options{.average = cumulative()};
  BatchNorm<float> layer(3, options), restored(3, options);
  Matrix y, expected, dx, expected_dx;
  for (unsigned batch = 0; batch < 3; ++batch) {
    const Matrix x = random_matrix(20, 3, batch);
    layer.forward(x, y);
    layer.backward(x, random_matrix(20, 3, 10 + batch), dx);
    layer.gamma() -= 0.1f * layer.gamma_gradient();
    layer.beta() -= 0.1f * layer.beta_gradient();
  }
  restored.gamma() = layer.gamma();
  restored.beta() = layer.beta();
  restored.running_mean() = layer.running_mean();
  restored.running_var() = layer.running_var();
  restored.set_batches_seen(layer.batches_seen());

  const Matrix x = random_matrix(20, 3, 20), dy = random_matrix(20, 3, 21);
  layer.infer(x, expected);
  restored.infer(x, y);
  EXPECT_EQ(y, expected);
  layer.zero_gradients();
  layer.forward(x, expected);
  layer.backward(x, dy, expected_dx);
  restored.forward(x, y);
  restored.backward(x, dy, dx);
  EXPECT_EQ(y, expected);
  EXPECT_EQ(dx, expected_dx);
  EXPECT_EQ(restored.gamma_gradient(), layer.gamma_gradient());
  EXPECT_EQ(restored.beta_gradient(), layer.beta_gradient());
  EXPECT_EQ(restored.running_mean(), layer.running_mean());
  EXPECT_EQ(restored.running_var(), layer.running_var());
  EXPECT_EQ(restored.batches_seen(), 4);
}

TEST(BatchNorm, GradientsAddUpUntilZeroed) {
  const Matrix x = random_matrix(20, 3, 1), dy = random_matrix(20, 3, 2), other = random_matrix(20, 3, 3);
  Matrix y, dx;
  BatchNorm<float> layer(3);
  layer.forward(x, y);
  layer.backward(x, dy, dx);
  const Eigen::VectorXf dgamma = layer.gamma_gradient(), dbeta = layer.beta_gradient();
  layer.zero_gradients();
  EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXf::Zero(3));
  EXPECT_EQ(layer.beta_gradient(), Eigen::VectorXf::Zero(3));
  layer.backward(x, other, dx);
  const Eigen::VectorXf other_dgamma = layer.gamma_gradient(), other_dbeta = layer.beta_gradient();
  layer.backward(x, dy, dx);
  EXPECT_TRUE(layer.gamma_gradient().isApprox(dgamma + other_dgamma, 1e-6f));
  EXPECT_TRUE(layer.beta_gradient().isApprox(dbeta + other_dbeta, 1e-6f));
}

TEST(BatchNorm, BackwardDifferentiatesTheLastForward) {
  const Matrix x = random_matrix(20, 3, 1), dy = random_matrix(20, 3, 2);
  Matrix y, trained, frozen, dx;
  BatchNorm<float> layer(3);
  layer.forward(x, y);
  layer.backward(x, dy, trained);
  layer.eval();
  layer.backward(x, dy, dx);
  EXPECT_EQ(dx, trained) << "the mode may change between forward and backward";
  layer.infer(x, y);
  layer.backward(x, dy, dx);
  EXPECT_EQ(dx, trained) << "infer is const";
  layer.forward(x, y);
  layer.backward(x, dy, frozen);
  EXPECT_NE(frozen, trained);
  const Eigen::RowVectorXf scale = (layer.running_var().array() + 1e-5).rsqrt().cast<float>().matrix().transpose();
  EXPECT_TRUE(frozen.isApprox((dy.array().rowwise() * scale.array()).matrix(), 1e-6f));
  layer.train();
  layer.backward(x, dy, dx);
  EXPECT_EQ(dx, frozen);
}

TEST(BatchNorm, BackwardUsesTheRunningStatisticsOfItsForward) {
  const Matrix x = random_matrix(20, 3, 1), dy = random_matrix(20, 3, 2);
  Matrix y, expected, dx;
  BatchNorm<float> layer(3);
  layer.forward(x, y);
  layer.eval();
  layer.forward(x, y);
  layer.backward(x, dy, expected);
  layer.reset_running_statistics();
  layer.backward(x, dy, dx);
  EXPECT_EQ(dx, expected);
}

TEST(BatchNorm, ResetRunningStatistics) {
  Matrix y;
  BatchNorm<float> layer(3);
  layer.gamma().setConstant(2);
  layer.forward(random_matrix(20, 3, 1), y);
  layer.reset_running_statistics();
  EXPECT_EQ(layer.running_mean(), Eigen::VectorXd::Zero(3));
  EXPECT_EQ(layer.running_var(), Eigen::VectorXd::Ones(3));
  EXPECT_EQ(layer.batches_seen(), 0);
  EXPECT_EQ(layer.gamma(), Eigen::VectorXf::Constant(3, 2));
}

TEST(BatchNorm, AbsentParametersAreOneAndZero) {
  const Matrix x = random_matrix(20, 3, 1), dy = random_matrix(20, 3, 2);
  for (const Affine affine : {Affine::scale_and_shift, Affine::scale, Affine::shift, Affine::none}) {
    SCOPED_TRACE(static_cast<int>(affine));
    const bool has_gamma = affine == Affine::scale_and_shift || affine == Affine::scale;
    const bool has_beta = affine == Affine::scale_and_shift || affine == Affine::shift;
    BatchNorm<float> layer(3, {.affine = affine}), full(3);
    if (has_gamma) full.gamma() = layer.gamma() = Eigen::Vector3f(0.5f, -2, 3);
    if (has_beta) full.beta() = layer.beta() = Eigen::Vector3f(1, 2, -3);
    EXPECT_EQ(layer.gamma().size(), has_gamma ? 3 : 0);
    EXPECT_EQ(layer.beta().size(), has_beta ? 3 : 0);
    Matrix y, expected_y, dx, expected_dx, inferred, expected_inferred;
    layer.forward(x, y);
    full.forward(x, expected_y);
    EXPECT_EQ(y, expected_y);
    layer.backward(x, dy, dx);
    full.backward(x, dy, expected_dx);
    EXPECT_EQ(dx, expected_dx);
    layer.infer(x, inferred);
    full.infer(x, expected_inferred);
    EXPECT_EQ(inferred, expected_inferred);
    EXPECT_EQ(layer.gamma_gradient(), has_gamma ? full.gamma_gradient() : Eigen::VectorXf());
    EXPECT_EQ(layer.beta_gradient(), has_beta ? full.beta_gradient() : Eigen::VectorXf());
    layer.zero_gradients();
    EXPECT_EQ(layer.gamma_gradient().size(), layer.gamma().size());
  }
}

TEST(BatchNorm, SingleValuesMayBeAllowed) {
  const Matrix x = random_matrix(1, 3, 1), dy = random_matrix(1, 3, 2);
  Matrix y, dx;
  BatchNorm<float> layer(3, {.single_value = SingleValue::allow});
  layer.beta() << 1, -2, 0.1f;
  layer.forward(x, y);
  EXPECT_EQ(y, layer.beta().transpose());
  EXPECT_EQ(layer.moments().mean, x.transpose().cast<double>());
  EXPECT_EQ(layer.moments().var(), Eigen::VectorXd::Zero(3));
  EXPECT_TRUE(layer.running_mean().isApprox(0.1 * x.transpose().cast<double>(), 1e-15));
  EXPECT_TRUE(layer.running_var().allFinite());
  layer.backward(x, dy, dx);
  // inv_std is 1 / sqrt(epsilon) here: the terms that cancel are about 300 times dy.
  EXPECT_LE(dx.cwiseAbs().maxCoeff(), 5e-7f * std::sqrt(1e5f) * dy.cwiseAbs().maxCoeff());
  EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXf::Zero(3));
  EXPECT_EQ(layer.beta_gradient(), dy.transpose());
}

TEST(BatchNorm, NoElements) {
  for (const auto& [rows, height] : {std::pair<Index, Index>{0, 4}, {4, 0}, {0, 0}}) {
    BatchNorm<float> layer(3);
    Tensor y(9, 9, 9, 9), dx;
    const Tensor x(rows, 3, height, 5);
    layer.forward(x, y);
    EXPECT_EQ(y.size(), 0);
    EXPECT_EQ(y.dimensions(), x.dimensions());
    EXPECT_EQ(layer.running_mean(), Eigen::VectorXd::Zero(3));
    EXPECT_EQ(layer.running_var(), Eigen::VectorXd::Ones(3));
    EXPECT_EQ(layer.batches_seen(), 0);
    layer.backward(x, x, dx);
    EXPECT_EQ(dx.dimensions(), x.dimensions());
    EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXf::Zero(3));
    EXPECT_EQ(layer.beta_gradient(), Eigen::VectorXf::Zero(3));
    Tensor inferred;
    layer.infer(x, inferred);
    EXPECT_EQ(inferred.dimensions(), x.dimensions());
  }
}

TEST(BatchNorm, NoElementsKeepNothingOfTheBatchBefore) {
  Tensor x(4, 3, 4, 5), y, dx;
  x.setConstant(NAN);
  BatchNorm<float> layer(3);
  layer.forward(x, y);
  const Tensor none(0, 3, 4, 5);
  layer.forward(none, y);
  layer.backward(none, none, dx);
  EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXf::Zero(3));
  EXPECT_EQ(layer.beta_gradient(), Eigen::VectorXf::Zero(3));
}

TEST(BatchNorm, CopiesAreIndependent) {
  const Matrix x = random_matrix(20, 3, 1), dy = random_matrix(20, 3, 2);
  Matrix y, dx, copied_dx;
  BatchNorm<float> layer(3);
  layer.forward(x, y);
  BatchNorm<float> copy = layer;
  layer.backward(x, dy, dx);
  copy.backward(x, dy, copied_dx);
  EXPECT_EQ(copied_dx, dx);
  copy.gamma().setZero();
  EXPECT_EQ(layer.gamma(), Eigen::VectorXf::Ones(3));
}

TEST(BatchNorm, AnyNumberOfThreadsMayInfer) {
  const Matrix x = random_matrix(500, 17, 1);
  Matrix y;
  BatchNorm<float> trained(17);
  trained.forward(x, y);
  const BatchNorm<float>& layer = trained;
  Matrix expected;
  layer.infer(x, expected);
  std::vector<Matrix> results(4);
  std::vector<std::thread> threads;
  for (Matrix& result : results) {
    threads.emplace_back([&] {
      for (int repetition = 0; repetition < 20; ++repetition) layer.infer(x, result);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Matrix& result : results) EXPECT_EQ(result, expected);
}

TEST(BatchNorm, OneRowAtATimeInfersLikeTheWhole) {
  const Matrix x = random_matrix(40, 17, 1);
  Matrix y, expected, row;
  BatchNorm<float> layer(17);
  layer.forward(x, y);
  layer.infer(x, expected);
  for (Index n = 0; n < x.rows(); ++n) {
    layer.infer(x.row(n), row);
    EXPECT_EQ(row, expected.row(n));
  }
}

TEST(BatchNorm, LongDouble) {
  for (const Layout& layout : {Layout{{31, 3}, Order::row_major, 1}, Layout{{4, 3, 5, 2}, Order::row_major, 1}}) {
    SCOPED_TRACE(text(layout));
    const auto p = random_problem<long double>(layout);
    expect_matches_oracle(p, run_step(p), 100);
  }
}

}  // namespace
}  // namespace batchnorm::test
