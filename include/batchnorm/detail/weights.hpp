#pragma once

#include <limits>
#include <span>
#include <string>

#include "batchnorm/detail/gradients.hpp"
#include "batchnorm/detail/weighted_formulas.hpp"

// Batch normalization where each position has a weight, or is masked.

namespace batchnorm {

/// What becomes of outputs with weight 0, and of their gradients: zeros, or normalized like all others.
enum class MaskedOutputs { zero, normalize };

namespace detail {

BATCHNORM_COLD [[noreturn]] inline void fail_weights(const char* function, std::span<const Index> dims, std::size_t d,
                                                     const std::string& wanted) {
  fail(function, "weights is " + text_of(dims) + "; axis " + std::to_string(d) + " must be " + wanted);
}

/// Every axis of the weights is that of x or 1; the channel axis is 1.
template <class X, class W>
void check_weights(const char* function, const W& weights, const X& x, Index axis) {
  const auto dims = dimensions_of(weights);
  const auto x_dims = dimensions_of(x);
  for (std::size_t d = 0; d < dims.size(); ++d) {
    if (dims[d] == 1) continue;
    if (static_cast<Index>(d) == axis) fail_weights(function, dims, d, "1, for all channels share them");
    if (dims[d] != x_dims[d]) fail_weights(function, dims, d, "1 or " + std::to_string(x_dims[d]) + ", as in x");
  }
}

/// Throws where it is no weight, or Compute cannot hold it.
template <class Compute, class T>
Compute convert_weight(const char* function, const T& weight) {
  const Compute result = static_cast<Compute>(weight);
  const bool is_lost = result == Compute(0) && weight != T(0);
  if (is_lost || !(result >= Compute(0) && result - result == Compute(0))) {
    fail(function, "a weight is ", static_cast<double>(weight),
         "; it must be finite and not negative, and in the range of the layer's parameters");
  }
  return result;
}

/// The weights of all positions, in the order of memory.
template <class Compute, class W, std::size_t Rank>
void expand_weights(const char* function, const W& weights, Index axis, const std::array<Index, Rank>& x_dims,
                    Vector<Compute>& to) {
  std::array<std::size_t, Rank> order;  // of the axes, the fastest first
  for (std::size_t d = 0; d < Rank; ++d) order[d] = TraitsOf<W>::row_major ? Rank - 1 - d : d;
  const auto dims = dimensions_of(weights);
  std::array<Index, Rank> stride{}, at{};
  Index step = 1, positions = 1;
  for (const std::size_t d : order) {
    stride[d] = dims[d] == 1 ? 0 : step;
    if constexpr (is_dense_rank_2<W>()) {
      if (step > 1 || d != order[0]) stride[d] = dims[d] == 1 ? 0 : weights.outerStride();
    }
    step *= dims[d];
    if (static_cast<Index>(d) != axis) positions *= x_dims[d];
  }
  to.resize(positions);
  const std::size_t fastest = static_cast<Index>(order[0]) == axis ? order[1] : order[0];
  const Index run = x_dims[fastest];
  const auto* from = weights.data();
  for (Index k = 0; k < positions; k += run) {
    for (Index i = 0; i < run; ++i) to[k + i] = convert_weight<Compute>(function, from[i * stride[fastest]]);
    for (const std::size_t d : order) {
      if (d == fastest || static_cast<Index>(d) == axis) continue;
      from += stride[d];
      if (++at[d] < x_dims[d]) break;
      from -= stride[d] * x_dims[d];
      at[d] = 0;
    }
  }
}

/// Checks the weights of x, and sets `to` to those of all positions.
template <class Parameter, class W, class X>
void take_weights(const char* function, const W& weights, const X& x, Index axis, Vector<Parameter>& to) {
  require_same_layout<X, W>();
  static_assert(std::is_constructible_v<Parameter, ScalarOf<W>>,
                "batchnorm: weights are numbers that convert to the scalar of the layer's parameters.");
  check_memory(function, "weights", weights);
  check_weights(function, weights, x, axis);
  expand_weights(function, weights, axis, dimensions_of(x), to);
}

/// Weights as an input beside x. All channels share them.
template <class T>
View<const T> weights_view(const Vector<T>& weights, const Shape& x) {
  return {weights.data(), {x.outer, 1, x.inner}, x.inner, 0};
}

/// Sum of the weights: what each channel counts.
template <class T>
StatisticOf<T> total(const Vector<T>& weights) {
  return sum_weights<StatisticOf<T>>(weights.data(), 0, weights.size());
}

/// Values per channel that count.
template <class T>
Index counted(const Vector<T>& weights) {
  return static_cast<Index>(
      std::count_if(weights.data(), weights.data() + weights.size(), [](const T& w) { return w != T(0); }));
}

/// Throws unless a batch has statistics to normalize with and, where they are unbiased, to keep: a weight counts like
/// as many values, so that their variance divides by the sum of the weights - 1.
template <class T>
void check_weighted_batch(const char* function, const Vector<T>& weights, MaskedOutputs outputs,
                          SingleValue single_value, bool unbiased) {
  const Index values = counted(weights);
  if (values == 0 && weights.size() != 0 && outputs == MaskedOutputs::normalize) {
    fail(function, "all weights are 0; there is nothing to normalize with (or MaskedOutputs::zero)");
  }
  if (values == 1 && single_value == SingleValue::error) {
    fail(function,
         "one value per channel has a weight; statistics of a batch need at least two (or SingleValue::allow)");
  }
  const double sum = static_cast<double>(total(weights));
  if (!(sum <= std::numeric_limits<double>::max()))
    fail(function, "the weights add up to ", sum, "; that must be finite");
  constexpr double rounding = 1e-6;  // of weights that should add up to 1: nothing else would be left of sum - 1
  if (unbiased && values > 1 && sum <= 1 + rounding) {
    fail(function, "the weights add up to ", sum,
         "; an unbiased running variance wants clearly more than 1 (or Variance::biased)");
  }
}

/// normalize, with zeros at masked positions.
template <class In, class T, class Act, class Out>
void normalize_masked(const AnyDevice& device, const In& x_weights, const View<Out>& y,
                      const FillNormalize<T, Act>& fill, Workspace<T>& workspace) {
  if (y.shape.size() == 0) return;
  const Partition partition = make_linear_partition(weighted_grid_of(x_weights, y), 1);
  detail::run(device, make_map<MaskedNormalizeFormula<Act>>(partition, x_weights, y), fill, workspace);
}

/// Moments before anything has been counted, but for the sum of the weights.
template <class In>
void prepare_weighted(BasicMoments<typename In::Statistic>& moments, const Grid& grid, const In& x_weights) {
  prepare(moments, grid.shape);
  moments.count = count_between<WeightedMomentFormula>(grid, x_weights, 0, grid.positions);
}

/// collect_moments with weights; count becomes their sum.
template <class In, class T>
void collect_weighted_moments(const AnyDevice& device, const In& x_weights, BasicMoments<StatisticOf<T>>& moments,
                              Workspace<T>& workspace) {
  const Grid grid = weighted_grid_of(x_weights);
  prepare_weighted(moments, grid, x_weights);
  if (grid.shape.size() == 0) return;
  const Partition partition = make_partition(grid, 1);
  detail::run(
      device,
      make_reduction<WeightedMomentFormula>(partition, x_weights, nullptr, moments.mean.data(), moments.m2.data()),
      NoCoefficients{}, workspace);
}

/// collect_weighted_moments and normalize_masked, together where the cache allows. Keeps inv_std.
template <class In, class T, class Act, class Out>
void normalize_masked_batch(const AnyDevice& device, const In& x_weights, const View<Out>& y,
                            BasicMoments<StatisticOf<T>>& moments, const Parameters<T>& parameters, double epsilon,
                            const Act& activation, StatisticOf<T>* inv_std, Workspace<T>& workspace) {
  const Grid grid = weighted_grid_of(x_weights, y);
  prepare_weighted(moments, grid, x_weights);
  if (grid.shape.size() == 0) return;
  const Partition partition = make_partition(grid, 1);
  detail::run(
      device,
      make_reduction<WeightedMomentFormula>(partition, x_weights, nullptr, moments.mean.data(), moments.m2.data()),
      NoCoefficients{}, make_map_after<MaskedNormalizeFormula<Act>>(partition, x_weights, y),
      FillNormalize<T, Act>{view_of(moments), parameters, epsilon, activation, inv_std}, workspace);
}

/// input_gradient of weighted statistics, where masked outputs are normalized like all others.
template <class In, class T, class Act, class Out>
void weighted_input_gradient(const AnyDevice& device, const In& x_dy_weights, const View<Out>& dx,
                             const FillInputGradient<T, Act>& fill, Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return;
  const Partition partition = make_linear_partition(weighted_grid_of(x_dy_weights, dx), 2);
  detail::run(device, make_map<WeightedInputGradientFormula<Act, false>>(partition, x_dy_weights, dx), fill, workspace);
}

/// The sums without masked positions, and weighted_input_gradient, together where the cache allows.
template <class In, class T, class Act, class Out>
void differentiate_masked(const AnyDevice& device, const In& x_dy_weights, const View<Out>& dx,
                          const FillInputGradient<T, Act>& fill, BasicGradientSums<StatisticOf<T>>& sums,
                          Workspace<T>& workspace) {
  clear(sums, dx.shape.channels);
  if (dx.shape.size() == 0) return;
  const Partition partition = make_partition(weighted_grid_of(x_dy_weights, dx), 2);
  detail::run(device,
              make_reduction<MaskedGradientFormula<Act>>(partition, x_dy_weights, fill.moments.mean, sums.dy.data(),
                                                         sums.dy_centered.data()),
              FillNormalize<T, Act>{fill.moments, fill.parameters, fill.epsilon, fill.activation},
              make_map_after<WeightedInputGradientFormula<Act, true>>(partition, x_dy_weights, dx), fill, workspace);
}

}  // namespace detail
}  // namespace batchnorm
