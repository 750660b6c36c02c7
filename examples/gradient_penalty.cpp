#include <batchnorm/batchnorm.hpp>
#include <iostream>

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;  // samples, channels

/// (norm(dx) - 1)^2 / 2, and its gradient with respect to gamma.
double penalty(batchnorm::BatchNorm<double>& layer, const Matrix& x, const Matrix& dy,
               Eigen::VectorXd& gamma_gradient) {
  Matrix y, dx, x_gradient, dy_gradient;
  layer.forward(x, y);
  layer.backward(x, dy, dx);
  const Matrix v = (1 - 1 / dx.norm()) * dx;  // the gradient of the penalty with respect to dx
  double_backward(x, dy, layer.moments(), layer.gamma(), batchnorm::Direction{v},
                  batchnorm::SecondGradients{x_gradient, dy_gradient, gamma_gradient}, layer.options());
  return (dx.norm() - 1) * (dx.norm() - 1) / 2;
}

int main() {
  const Matrix x = Matrix::NullaryExpr(16, 3, [](auto n, auto c) { return std::sin(double(n * n + c)); });
  const Matrix dy = Matrix::NullaryExpr(16, 3, [](auto n, auto c) { return std::cos(double(n * c + n)); });
  batchnorm::BatchNorm<double> layer(3);
  Eigen::VectorXd gradient, unused;
  const double before = penalty(layer, x, dy, gradient), step = 1e-6;
  layer.gamma()[0] += step;
  std::cout.precision(4);
  const double difference = (penalty(layer, x, dy, unused) - before) / step;
  std::cout << "gradient " << gradient[0] << ", by differences " << difference << '\n';
}
