#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "batchnorm/detail/eigen.hpp"
#include "batchnorm/error.hpp"

namespace batchnorm {

using Index = Eigen::Index;

/// How running statistics follow the batches: running = (1 - w) * running + w * batch, with w = weight(t) for batch
/// number t = 1, 2, ... Made by the functions below, whose names say what the number weighs.
struct RunningAverage {
  enum class Rule { constant, cumulative, debiased, windowed, none };
  Rule rule;
  double value;

  double weight(Index batch) const {
    const double t = static_cast<double>(batch);
    switch (rule) {
      case Rule::constant:
        return value;
      case Rule::cumulative:
        return 1 / t;
      // h <- (1 - a) h + a b with r = h / (1 - (1 - a)^t) is this weight on b, and 1 minus it on the last r.
      case Rule::debiased:
        return value == 0 ? 0 : value / -std::expm1(t * std::log1p(-value));
      case Rule::windowed:
        return 1 / std::min(t, value);
      case Rule::none:
        return 0;
    }
    return 0;
  }
};

namespace detail {

inline double checked_weight(const char* function, double weight) {
  if (!(weight >= 0 && weight <= 1)) fail(function, "weight is ", weight, "; it must lie in [0, 1]");
  return weight;
}

}  // namespace detail

/// Exponential average; `weight` is that of the new batch (PyTorch, oneDNN).
inline RunningAverage new_weight(double weight) {
  return {RunningAverage::Rule::constant, detail::checked_weight("new_weight", weight)};
}
/// Exponential average; `weight` is that of the old value (Keras, ONNX, Caffe).
inline RunningAverage old_weight(double weight) {
  return {RunningAverage::Rule::constant, 1 - detail::checked_weight("old_weight", weight)};
}
/// The plain mean over all batches so far.
inline RunningAverage cumulative() { return {RunningAverage::Rule::cumulative, 0}; }
/// Exponential average without the pull of the initial value; `weight` is that of the new batch.
inline RunningAverage debiased(double weight) {
  return {RunningAverage::Rule::debiased, detail::checked_weight("debiased", weight)};
}
/// Cumulative for the first `batches` batches, then exponential with weight 1 / batches (dlib).
inline RunningAverage windowed(Index batches) {
  const double value = static_cast<double>(batches);
  if (batches < 1) detail::fail("windowed", "batches is ", value, "; it must be at least 1");
  return {RunningAverage::Rule::windowed, value};
}
/// No running statistics: the layer normalizes with batch statistics in eval mode too.
inline RunningAverage none() { return {RunningAverage::Rule::none, 0}; }

/// Which variance enters the running one: m2 / (count - 1), or m2 / count. Normalization always uses the biased one.
enum class Variance { unbiased, biased };

/// Which parameters the layer has: y = gamma * xhat + beta; an absent gamma is 1, an absent beta 0.
enum class Affine { scale_and_shift, scale, shift, none };

/// Whose mean and variance a derivative goes through: those of x itself, which move with it, or constants such as
/// running statistics.
enum class Statistics { of_batch, constant };

/// Training with one value per channel: an Error (its variance says nothing), or variance 0 and y = beta.
enum class SingleValue { error, allow };

/// What a batch normalization is. The defaults are PyTorch's.
struct Options {
  double epsilon = 1e-5;
  int axis = 1;  // of the channels; negative counts from the end
  RunningAverage average = new_weight(0.1);
  Variance running_variance = Variance::unbiased;
  Affine affine = Affine::scale_and_shift;
  SingleValue single_value = SingleValue::error;
};

inline Options pytorch_options() { return {}; }

/// tf.keras.layers.BatchNormalization.
inline Options keras_options() {
  return {.epsilon = 1e-3,
          .axis = -1,
          .average = old_weight(0.99),
          .running_variance = Variance::biased,
          .single_value = SingleValue::allow};
}

/// ONNX BatchNormalization, opset 15.
inline Options onnx_options() {
  return {.average = old_weight(0.9), .running_variance = Variance::biased, .single_value = SingleValue::allow};
}

/// Caffe's BatchNorm layer (its Scale layer is separate). Caffe stores undivided sums beside their common factor; the
/// running values here are those sums divided by it, which is the debiased average with weight 1 - 0.999.
inline Options caffe_options() {
  return {.average = debiased(1 - 0.999), .affine = Affine::none, .single_value = SingleValue::allow};
}

/// dlib's bn_con and bn_fc, with the default running_stats_window_size of 100: as it counts, 101 batches.
inline Options dlib_options() { return {.epsilon = 1e-4, .average = windowed(101)}; }

namespace detail {

inline void check_channel_count(const char* function, Index channels) {
  if (channels < 1) fail(function, "channels is ", static_cast<double>(channels), "; it must be at least 1");
}

/// The functions above check it, too; but a RunningAverage may have been put together without them.
inline void check_average(const char* function, const RunningAverage& average) {
  if (average.rule == RunningAverage::Rule::windowed) {
    if (!(average.value >= 1)) fail(function, "window is ", average.value, "; it must be at least 1");
  } else {
    checked_weight(function, average.value);
  }
}

inline void check_epsilon(const char* function, double epsilon) {
  if (!(epsilon >= 0 && epsilon <= std::numeric_limits<double>::max())) {
    fail(function, "epsilon is ", epsilon, "; it must be finite and not negative");
  }
}

}  // namespace detail
}  // namespace batchnorm
