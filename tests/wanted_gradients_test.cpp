// What a backward is asked for.
#include "finite_differences.hpp"
#include "step.hpp"

namespace batchnorm::test {
namespace {

class WantedGradients : public testing::Test {
 protected:
  using Matrix = Eigen::MatrixXd;
  WantedGradients() {
    layer.gamma() << 0.5, -1, 2;
    layer.forward(x, y);
    layer.backward(x, dy, dx);
    dgamma = layer.gamma_gradient();
    dbeta = layer.beta_gradient();
  }
  BatchNorm<double> layer{3};
  const Matrix x = Matrix::Random(8, 3), dy = Matrix::Random(8, 3);
  Matrix y, dx, again;
  Eigen::VectorXd dgamma, dbeta;
};

TEST_F(WantedGradients, AreAddedOverwrittenOrSkipped) {
  layer.backward(x, dy, again);
  EXPECT_EQ(layer.gamma_gradient(), 2 * dgamma);
  EXPECT_EQ(layer.beta_gradient(), 2 * dbeta);
  layer.backward(x, dy, again, {.parameters = ParameterGradients::overwrite});
  EXPECT_EQ(layer.gamma_gradient(), dgamma);
  EXPECT_EQ(layer.beta_gradient(), dbeta);
  layer.gamma_gradient().setConstant(7);
  layer.backward(x, dy, again, {.parameters = ParameterGradients::skip});
  EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXd::Constant(3, 7));
  EXPECT_EQ(again, dx);
}

TEST_F(WantedGradients, OfTheParametersAlone) {
  layer.backward_parameters(x, dy, ParameterGradients::overwrite);
  EXPECT_EQ(layer.gamma_gradient(), dgamma);
  EXPECT_EQ(layer.beta_gradient(), dbeta);
  layer.backward_parameters(x, dy);
  EXPECT_EQ(layer.gamma_gradient(), 2 * dgamma);
}

TEST_F(WantedGradients, OfFrozenStatistics) {
  layer.eval();
  layer.forward(x, y);
  layer.backward(x, dy, dx, {.parameters = ParameterGradients::overwrite});
  const Eigen::VectorXd frozen = layer.gamma_gradient();
  const Eigen::VectorXd inv_std = (layer.running_var().array() + 1e-5).rsqrt();
  const Eigen::VectorXd by_hand =
      ((x.rowwise() - layer.running_mean().transpose()) * inv_std.asDiagonal()).cwiseProduct(dy).colwise().sum();
  EXPECT_TRUE(frozen.isApprox(by_hand, 1e-13));
  layer.backward(x, dy, again, {.parameters = ParameterGradients::skip});
  EXPECT_EQ(again, dx);
  EXPECT_EQ(layer.gamma_gradient(), frozen);
}

TEST_F(WantedGradients, ThroughMeanAndVarianceAsOutputs) {
  const Eigen::VectorXd by_mean = Eigen::VectorXd::Random(3), by_var = Eigen::VectorXd::Random(3);
  layer.backward(x, dy, dx, {.mean = &by_mean, .var = &by_var});
  const Eigen::VectorXd flat = x.reshaped();
  const auto loss = [&](const Eigen::VectorXd& of_x) {
    BatchNorm<double> same = layer;
    Matrix result;
    same.forward(Matrix(of_x.reshaped(8, 3)), result);
    return result.cwiseProduct(dy).sum() + same.moments().mean.dot(by_mean) + same.moments().var().dot(by_var);
  };
  EXPECT_TRUE(dx.isApprox(Matrix(finite_differences(loss, flat, 1e-4).reshaped(8, 3)), 1e-8));
}

TEST_F(WantedGradients, ThroughTheVarianceOfAConstant) {
  const Matrix constant = Matrix::Constant(8, 3, 10.1);
  const Eigen::VectorXd by_var = Eigen::VectorXd::Ones(3);
  BatchNorm<double> without_epsilon(3, {.epsilon = 0});
  without_epsilon.forward(constant, y);
  without_epsilon.backward(constant, dy, dx, {.var = &by_var});
  EXPECT_EQ(dx, Matrix::Zero(8, 3));
}

TEST_F(WantedGradients, RefuseWhatDoesNotFit) {
  const Eigen::VectorXd two = Eigen::VectorXd::Ones(2), three = Eigen::VectorXd::Ones(3);
  EXPECT_EQ(error_of([&] { layer.backward(x, dy, dx, {.mean = &two}); }),
            "batchnorm::backward: options.mean has length 2; it must have one entry for each of 3 channels");
  EXPECT_EQ(error_of([&] { layer.backward(x, dy, dx, {.var = &two}); }),
            "batchnorm::backward: options.var has length 2; it must have one entry for each of 3 channels");
  layer.eval();
  layer.forward(x, y);
  EXPECT_EQ(error_of([&] { layer.backward(x, dy, dx, {.var = &three}); }),
            "batchnorm::backward: options.var is given; the last forward normalized with running statistics, which are "
            "constants");
  EXPECT_EQ(layer.gamma_gradient(), dgamma);
}

}  // namespace
}  // namespace batchnorm::test
