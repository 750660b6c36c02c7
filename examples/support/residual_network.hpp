#pragma once

#include <algorithm>
#include <array>
#include <batchnorm/batchnorm.hpp>
#include <cmath>
#include <optional>
#include <random>

#include "convolution.hpp"
#include "dense.hpp"

namespace example {

/// A convolution, batch normalization, whose beta takes the place of a bias, and ReLU.
class NormalizedConvolution {
 public:
  NormalizedConvolution(const Tensor& weights, Index stride)
      : convolution_(weights, stride), batch_norm_(BatchNorm(weights.dimension(3), {.axis = -1})) {}

  void train() { batch_norm_->train(); }
  void eval() { batch_norm_->eval(); }

  void forward(const Device& device, const Tensor& x, Tensor& y) {
    convolution_.forward(device, x, convolved_);
    if (batch_norm_) {
      batch_norm_->forward(device, convolved_, y);
    } else {
      y.resize(convolved_.dimensions());
      y.device(device) = convolved_.cwiseMax(0.f);
    }
  }

  /// The same with z added before the ReLU.
  void forward_add(const Device& device, const Tensor& x, const Tensor& z, Tensor& y) {
    convolution_.forward(device, x, convolved_);
    if (batch_norm_) {
      batch_norm_->forward_add(device, convolved_, z, y);
    } else {
      y.resize(convolved_.dimensions());
      y.device(device) = (convolved_ + z).cwiseMax(0.f);
    }
  }

  /// Turns the gradient of y into that of x.
  void backward(const Device& device, const Tensor& x, Tensor& gradient) {
    batch_norm_->backward(device, convolved_, gradient, convolved_, overwrite);
    convolution_.backward(device, x, convolved_, gradient);
  }

  /// Of forward_add: turns the gradient of y into that of z, and sets that of x.
  void backward_add(const Device& device, const Tensor& x, Tensor& gradient, Tensor& x_gradient) {
    batch_norm_->backward_add(device, convolved_, gradient, convolved_, gradient, overwrite);
    convolution_.backward(device, x, convolved_, x_gradient);
  }

  void step(float rate) {
    convolution_.step(rate);
    batch_norm_->gamma() -= rate * batch_norm_->gamma_gradient();
    batch_norm_->beta() -= rate * batch_norm_->beta_gradient();
  }

  /// Moves what the batch normalization does in inference into the weights and a bias of the convolution.
  void fold() {
    const batchnorm::ScaleShift folded = scale_shift(*batch_norm_);
    fold_into_previous(folded, convolution_.weights(), convolution_.bias(), {.output_axis = -1, .input_axis = -2});
    batch_norm_.reset();
  }

 private:
  using BatchNorm = batchnorm::BatchNorm<float, batchnorm::Relu>;
  static constexpr BatchNorm::BackwardOptions overwrite{.parameters = batchnorm::ParameterGradients::overwrite};

  Convolution convolution_;
  std::optional<BatchNorm> batch_norm_;  // none once it is folded
  Tensor convolved_;
};

/// y = second(first(x)) with x added before the last ReLU.
class ResidualBlock {
 public:
  ResidualBlock(const Tensor& first, const Tensor& second) : first_(first, 1), second_(second, 1) {}

  void forward(const Device& device, const Tensor& x) {
    first_.forward(device, x, hidden_);
    second_.forward_add(device, hidden_, x, y_);
  }

  const Tensor& y() const { return y_; }

  /// Turns the gradient of y into that of x.
  void backward(const Device& device, const Tensor& x, Tensor& gradient) {
    Tensor branch;
    second_.backward_add(device, hidden_, gradient, branch);
    first_.backward(device, x, branch);
    gradient.device(device) = gradient + branch;
  }

  std::array<NormalizedConvolution*, 2> convolutions() { return {&first_, &second_}; }

 private:
  NormalizedConvolution first_, second_;
  Tensor hidden_, y_;
};

inline Matrix mean_over_pixels(const Tensor& x) {
  Matrix means(x.dimension(0), x.dimension(3));
  for (Index image = 0; image < means.rows(); ++image) {
    means.row(image) = matrix_of(x, image, pixels(x)).colwise().mean();
  }
  return means;
}

inline void spread_over_pixels(const Matrix& gradient, Tensor& dx) {
  for (Index image = 0; image < gradient.rows(); ++image) {
    matrix_of(dx, image, pixels(dx)).rowwise() = gradient.row(image) / static_cast<float>(pixels(dx));
  }
}

/// For 28 x 28 images: 16 channels of 14 x 14, 32 channels of 7 x 7, a residual block on each, and a dense layer on the
/// mean of every channel.
class ResidualNetwork {
 public:
  explicit ResidualNetwork(unsigned seed) : ResidualNetwork(InitialWeights{std::mt19937(seed)}) {}

  void train() {
    for (NormalizedConvolution* each : convolutions()) each->train();
  }
  void eval() {
    for (NormalizedConvolution* each : convolutions()) each->eval();
  }

  const Matrix& forward(const Device& device, const Tensor& images) {
    stem_.forward(device, images, stem_y_);
    block_1_.forward(device, stem_y_);
    transition_.forward(device, block_1_.y(), transition_y_);
    block_2_.forward(device, transition_y_);
    features_ = mean_over_pixels(block_2_.y());
    output_.forward(features_, logits_);
    return logits_;
  }

  void backward(const Device& device, const Tensor& images, const Matrix& logits_gradient) {
    output_.backward(features_, logits_gradient);
    Tensor gradient(block_2_.y().dimensions());
    spread_over_pixels(output_.input_gradient(logits_gradient), gradient);
    block_2_.backward(device, transition_y_, gradient);
    transition_.backward(device, block_1_.y(), gradient);
    block_1_.backward(device, stem_y_, gradient);
    stem_.backward(device, images, gradient);
  }

  void step(float rate) {
    for (NormalizedConvolution* each : convolutions()) each->step(rate);
    output_.step(rate);
  }

  /// Afterwards the network has no batch normalization, answers as it did in eval, and cannot be trained.
  void fold() {
    for (NormalizedConvolution* each : convolutions()) each->fold();
  }

 private:
  /// N(0, 2 / inputs), He et al. 2015.
  struct InitialWeights {
    std::mt19937 generator;

    Tensor operator()(Index inputs, Index outputs) {
      std::normal_distribution<float> normal(0, std::sqrt(2 / static_cast<float>(9 * inputs)));
      Tensor weights(3, 3, inputs, outputs);
      std::generate_n(weights.data(), weights.size(), [&] { return normal(generator); });
      return weights;
    }
  };

  /// Braces, for they fix the order of the random numbers, which parentheses leave to the compiler.
  explicit ResidualNetwork(InitialWeights weights)
      : stem_(weights(1, narrow), 2),
        block_1_{weights(narrow, narrow), weights(narrow, narrow)},
        transition_(weights(narrow, wide), 2),
        block_2_{weights(wide, wide), weights(wide, wide)},
        output_(Matrix::Zero(wide, 10), Dense::Bias::zero) {}

  std::array<NormalizedConvolution*, 6> convolutions() {
    const auto [a, b] = block_1_.convolutions();
    const auto [c, d] = block_2_.convolutions();
    return {&stem_, a, b, &transition_, c, d};
  }

  static constexpr Index narrow = 16, wide = 32;

  NormalizedConvolution stem_;
  ResidualBlock block_1_;
  NormalizedConvolution transition_;
  ResidualBlock block_2_;
  Dense output_;
  Tensor stem_y_, transition_y_;
  Matrix features_, logits_;
};

}  // namespace example
