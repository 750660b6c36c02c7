#pragma once

#include <utility>

#include "matrix.hpp"

namespace example {

/// y = x * weights + bias, or x * weights.
class Dense {
 public:
  enum class Bias { none, zero };

  Dense(Matrix weights, Bias bias) : weights_(std::move(weights)) {
    if (bias == Bias::zero) bias_.setZero(weights_.cols());
  }

  void forward(const Matrix& x, Matrix& y) const {
    y.noalias() = x * weights_;
    if (bias_.size() > 0) y.rowwise() += bias_;
  }

  void backward(const Matrix& x, const Matrix& dy) {
    weights_gradient_.noalias() = x.transpose() * dy;
    if (bias_.size() > 0) bias_gradient_ = dy.colwise().sum();
  }

  Matrix input_gradient(const Matrix& dy) const { return dy * weights_.transpose(); }

  void step(float rate) {
    weights_ -= rate * weights_gradient_;
    if (bias_.size() > 0) bias_ -= rate * bias_gradient_;
  }

 private:
  Matrix weights_, weights_gradient_;
  Eigen::RowVectorXf bias_, bias_gradient_;
};

}  // namespace example
