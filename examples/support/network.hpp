#pragma once

#include <array>
#include <batchnorm/batchnorm.hpp>
#include <optional>
#include <random>

#include "classification.hpp"
#include "dense.hpp"

namespace example {

enum class Normalization { none, batch };

/// y = sigmoid(batch_norm(x * weights)), or sigmoid(x * weights + bias) without batch normalization.
class HiddenLayer {
 public:
  HiddenLayer(const Matrix& weights, Normalization normalization)
      // Batch normalization would subtract a bias again; its beta takes that place.
      : dense_(weights, normalization == Normalization::batch ? Dense::Bias::none : Dense::Bias::zero) {
    if (normalization == Normalization::batch) batch_norm_.emplace(weights.cols());
  }

  void forward(const Matrix& x) {
    dense_.forward(x, dense_output_);
    if (batch_norm_) {
      batch_norm_->forward(dense_output_, y_);
    } else {
      y_ = dense_output_;
    }
    y_ = y_.array().logistic();
  }

  const Matrix& y() const { return y_; }

  /// Turns the gradient of y into that of the dense layer's output.
  void backward(const Matrix& x, Matrix& gradient) {
    gradient.array() *= y_.array() * (1 - y_.array());
    if (batch_norm_) {
      batch_norm_->zero_gradients();
      batch_norm_->backward(dense_output_, gradient, gradient);
    }
    dense_.backward(x, gradient);
  }

  /// Takes the gradient of the dense layer's output.
  Matrix input_gradient(const Matrix& gradient) const { return dense_.input_gradient(gradient); }

  void step(float rate) {
    dense_.step(rate);
    if (batch_norm_) {
      batch_norm_->gamma() -= rate * batch_norm_->gamma_gradient();
      batch_norm_->beta() -= rate * batch_norm_->beta_gradient();
    }
  }

  /// What the sigmoid receives in inference: normalized with the running statistics.
  Matrix infer_sigmoid_input(const Matrix& x) const {
    Matrix u;
    dense_.forward(x, u);
    if (batch_norm_) batch_norm_->infer(u, u);
    return u;
  }

 private:
  Dense dense_;
  std::optional<batchnorm::BatchNorm<float>> batch_norm_;
  Matrix dense_output_, y_;
};

/// The network of Ioffe and Szegedy 2015, section 4.1: 784-100-100-100-10, sigmoids, cross-entropy.
class Network {
 public:
  struct Inference {
    Matrix sigmoid_input;  // of the last hidden layer
    Matrix log_probabilities;
  };

  /// The same seed gives the same weights N(0, weight_std), with and without batch normalization.
  Network(double weight_std, Normalization normalization, unsigned seed)
      : Network(normalization,
                [normal = std::normal_distribution<float>(0, static_cast<float>(weight_std)),
                 generator = std::mt19937(seed)](Index inputs, Index outputs) mutable -> Matrix {
                  return Matrix::NullaryExpr(inputs, outputs, [&] { return normal(generator); });
                }) {}

  /// One step of stochastic gradient descent.
  void train(const Matrix& images, const Labels& labels, float rate) {
    forward(images);
    backward(images, labels);
    for (HiddenLayer& layer : hidden_) layer.step(rate);
    output_.step(rate);
  }

  Inference infer(const Matrix& images) const {
    Matrix x = images, sigmoid_input, logits;
    for (const HiddenLayer& layer : hidden_) {
      sigmoid_input = layer.infer_sigmoid_input(x);
      x = sigmoid_input.array().logistic();
    }
    output_.forward(x, logits);
    return {sigmoid_input, log_softmax(logits)};
  }

 private:
  template <class Weights>
  Network(Normalization normalization, Weights weights)
      : hidden_{HiddenLayer(weights(784, 100), normalization), HiddenLayer(weights(100, 100), normalization),
                HiddenLayer(weights(100, 100), normalization)},
        output_(weights(100, 10), Dense::Bias::zero) {}

  const Matrix& input_of(std::size_t layer, const Matrix& images) const {
    return layer == 0 ? images : hidden_[layer - 1].y();
  }

  void forward(const Matrix& images) {
    for (std::size_t i = 0; i < hidden_.size(); ++i) hidden_[i].forward(input_of(i, images));
    output_.forward(hidden_.back().y(), logits_);
  }

  void backward(const Matrix& images, const Labels& labels) {
    Matrix gradient = loss_gradient(logits_, labels);
    output_.backward(hidden_.back().y(), gradient);
    gradient = output_.input_gradient(gradient);
    for (std::size_t i = hidden_.size(); i-- > 0;) {
      hidden_[i].backward(input_of(i, images), gradient);
      if (i > 0) gradient = hidden_[i].input_gradient(gradient);
    }
  }

  std::array<HiddenLayer, 3> hidden_;
  Dense output_;
  Matrix logits_;
};

}  // namespace example
