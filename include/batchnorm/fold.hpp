#pragma once

#include "batchnorm/batch_norm.hpp"

// After training a layer multiplies each value by a number of its channel and adds another. These can be moved into the
// weights of the layer before or after it, and then cost nothing.

namespace batchnorm {

/// y = scale * x + shift for each channel. Where |mean| is far larger than the standard deviation, the two cancel in
/// float; `BatchNorm::infer` does not have that problem.
struct ScaleShift {
  Vector<double> scale, shift;
};

/// What the layer does in inference, before its activation: scale = gamma / sqrt(running_var + epsilon), shift = beta -
/// running_mean * scale.
///
/// Throws: batchnorm::Error without running statistics, or with a negative running variance.
template <class Scalar, Activation Act>
ScaleShift scale_shift(const BatchNorm<Scalar, Act>& layer) {
  constexpr const char* function = "scale_shift";
  layer.check(function);
  if (!layer.has_running_statistics()) detail::fail(function, "the layer has no running statistics");
  detail::check_not_negative(function, "running_var", layer.running_var());
  using Statistic = StatisticOf<Scalar>;
  using Single = detail::Lanes<Statistic, Statistic, 0>;
  const Index channels = layer.channels();
  ScaleShift result{Vector<double>::Ones(channels), Vector<double>::Zero(channels)};
  if (layer.gamma().size() > 0) result.scale = layer.gamma().template cast<double>();
  if (layer.beta().size() > 0) result.shift = layer.beta().template cast<double>();
  for (Index c = 0; c < channels; ++c) {
    Statistic inv_std = layer.running_var()[c];
    detail::invert_std<Single>(inv_std, Statistic(1), layer.options().epsilon);
    result.scale[c] *= static_cast<double>(inv_std);
    result.shift[c] -= static_cast<double>(layer.running_mean()[c]) * result.scale[c];
  }
  return result;
}

/// Which axes of a weight tensor count outputs and inputs. With groups, an output channel is
/// (input index / inputs per group) * outputs per group + output index.
///
/// | layer | output_axis | input_axis | groups |
/// | --- | --- | --- | --- |
/// | dense, or any convolution with weights (out, in / groups, ...) | 0 | 1 | 1 |
/// | dense (in, out); convolution (..., in, out) | -1 | -2 | 1 |
/// | transposed convolution (in, out / groups, ...) | 1 | 0 | its groups |
/// | depthwise convolution (..., channels, multiplier) | -1 | -2 | channels |
struct WeightLayout {
  int output_axis = 0;
  int input_axis = 1;
  Index groups = 1;
};

namespace detail {

/// Calls f(weight, coordinates) for each.
template <class W, class F>
void for_each_weight(W& weights, const F& f) {
  const Dimensions<W> dims = dimensions_of(weights);
  Dimensions<W> strides{}, at{};
  Index stride = 1;
  for (std::size_t k = 0; k < dims.size(); ++k) {
    const std::size_t axis = TraitsOf<W>::row_major ? dims.size() - 1 - k : k;
    strides[axis] = stride;
    stride *= dims[axis];
    if constexpr (is_dense_rank_2<W>()) stride = weights.outerStride();
  }
  for (Index left = weights.size(); left > 0; --left) {
    Index offset = 0;
    for (std::size_t d = 0; d < dims.size(); ++d) offset += at[d] * strides[d];
    f(weights.data()[offset], at);
    for (std::size_t d = dims.size(); d-- > 0;) {
      if (++at[d] < dims[d]) break;
      at[d] = 0;
    }
  }
}

template <class W, class Bias>
consteval void require_weights() {
  require_tensor<W>();
  require_output<W, W&>();
  static_assert(std::is_same_v<Bias, Vector<typename Bias::Scalar>>, "batchnorm: the bias is a Vector.");
}

struct WeightAxes {
  std::size_t output, input;
};

template <class W>
WeightAxes resolve_axes(const char* function, const WeightLayout& layout) {
  const auto resolve = [&](const char* name, int axis) {
    return static_cast<std::size_t>(resolve_axis<W>(function, axis, name, "the weights have"));
  };
  const WeightAxes axes{resolve("output_axis", layout.output_axis), resolve("input_axis", layout.input_axis)};
  if (axes.output == axes.input) fail(function, "output_axis and input_axis are the same");
  return axes;
}

inline void check_scale_shift(const char* function, const ScaleShift& folded) {
  check_length(function, "shift", folded.shift.size(), folded.scale.size());
}

/// The weights have as many outputs, or inputs, as channels were normalized.
inline void check_weights(const char* function, const ScaleShift& folded, Index length, const char* what) {
  if (length == folded.scale.size()) return;
  fail(function, "weights have " + std::to_string(length) + what + "; scale and shift have " +
                     std::to_string(folded.scale.size()) + " entries");
}

inline void check_groups(const char* function, Index groups, Index inputs) {
  if (groups >= 1 && inputs % groups == 0) return;
  fail(function, "groups is " + std::to_string(groups) + "; it must divide " + std::to_string(inputs) + " inputs");
}

inline void check_scale(const char* function, const char* what, double scale) {
  if (scale > 0 && scale <= std::numeric_limits<double>::max()) return;
  fail(function, what, scale, "; it must be positive and finite");
}

}  // namespace detail

/// Folds batch normalization into the dense or convolutional layer before it, whose outputs it normalizes:
/// weights *= scale, bias = bias * scale + shift, computed in double and rounded once. An empty bias stands for zeros
/// and becomes the shift.
///
/// Throws: batchnorm::Error where the layout does not fit; then nothing has been written.
template <class W, class Bias>
void fold_into_previous(const ScaleShift& folded, W& weights, Bias& bias, const WeightLayout& layout = {}) {
  constexpr const char* function = "fold_into_previous";
  detail::require_weights<W, Bias>();
  using T = detail::ScalarOf<W>;
  const detail::WeightAxes axes = detail::resolve_axes<W>(function, layout);
  const auto dims = detail::dimensions_of(weights);
  detail::check_memory(function, "weights", weights);
  detail::check_groups(function, layout.groups, dims[axes.input]);
  const Index outputs = dims[axes.output], inputs = dims[axes.input] / layout.groups;
  detail::check_scale_shift(function, folded);
  detail::check_weights(function, folded, outputs * layout.groups, " outputs");
  detail::check_optional_length(function, "bias", bias.size(), folded.scale.size());
  detail::for_each_weight(weights, [&](T& weight, const auto& at) {
    const Index group = layout.groups == 1 ? 0 : at[axes.input] / inputs;
    weight = static_cast<T>(static_cast<double>(weight) * folded.scale[group * outputs + at[axes.output]]);
  });
  if (bias.size() == 0) bias.setZero(folded.scale.size());
  for (Index c = 0; c < bias.size(); ++c) {
    bias[c] = static_cast<typename Bias::Scalar>(static_cast<double>(bias[c]) * folded.scale[c] + folded.shift[c]);
  }
}

/// Folds batch normalization into the dense layer after it, whose inputs it normalizes: bias += weights * shift,
/// weights *= scale by inputs, computed in double and rounded once. (A convolution that pads with zeros cannot take it
/// in: the padding is not normalized.) An empty bias stands for zeros.
///
/// Throws: batchnorm::Error where the layout does not fit; then nothing has been written.
template <class W, class Bias>
void fold_into_next(const ScaleShift& folded, W& weights, Bias& bias, const WeightLayout& layout = {}) {
  constexpr const char* function = "fold_into_next";
  detail::require_weights<W, Bias>();
  static_assert(detail::TraitsOf<W>::rank == 2, "batchnorm: only a dense layer takes in what comes before it.");
  using T = detail::ScalarOf<W>;
  const detail::WeightAxes axes = detail::resolve_axes<W>(function, layout);
  const auto dims = detail::dimensions_of(weights);
  detail::check_memory(function, "weights", weights);
  if (layout.groups != 1) detail::fail(function, "a dense layer has one group");
  detail::check_scale_shift(function, folded);
  detail::check_weights(function, folded, dims[axes.input], " inputs");
  if (bias.size() != 0 && bias.size() != dims[axes.output]) {
    detail::fail(function, "bias has length " + std::to_string(bias.size()) + "; the weights have " +
                               std::to_string(dims[axes.output]) + " outputs");
  }
  Vector<double> sums = Vector<double>::Zero(dims[axes.output]);
  detail::for_each_weight(weights, [&](T& weight, const auto& at) {
    const double w = static_cast<double>(weight);
    sums[at[axes.output]] += w * folded.shift[at[axes.input]];
    weight = static_cast<T>(w * folded.scale[at[axes.input]]);
  });
  if (bias.size() == 0) bias.setZero(sums.size());
  for (Index c = 0; c < bias.size(); ++c) {
    bias[c] = static_cast<typename Bias::Scalar>(static_cast<double>(bias[c]) + sums[c]);
  }
}

/// For 8-bit inference: q = scale * sum + shift, to be rounded and clamped, from the integer sums of a layer whose
/// values are sum_scale * sum (one scale, or one per channel) to outputs whose values are
/// output_scale * (q - output_zero_point).
///
/// Throws: batchnorm::Error when a scale of sums or outputs is not positive and finite, or on a wrong number of them.
inline ScaleShift requantization(const ScaleShift& folded, const Vector<double>& sum_scale, double output_scale,
                                 int output_zero_point = 0) {
  constexpr const char* function = "requantization";
  detail::check_scale_shift(function, folded);
  if (sum_scale.size() != 1 && sum_scale.size() != folded.scale.size()) {
    detail::fail(function, "sum_scale has length " + std::to_string(sum_scale.size()) +
                               "; it must have one entry, or one for each of " + std::to_string(folded.scale.size()) +
                               " channels");
  }
  for (const double scale : sum_scale) detail::check_scale(function, "a sum_scale is ", scale);
  detail::check_scale(function, "output_scale is ", output_scale);
  ScaleShift result{folded.scale / output_scale, folded.shift / output_scale};
  for (Index c = 0; c < result.scale.size(); ++c) {
    result.scale[c] *= sum_scale[sum_scale.size() == 1 ? 0 : c];
    result.shift[c] += output_zero_point;
  }
  return result;
}

}  // namespace batchnorm
