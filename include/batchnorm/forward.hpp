#pragma once

#include <utility>

#include "batchnorm/detail/normalize.hpp"

namespace batchnorm {

/// Count, mean and sum of squared deviations of each channel of x: the statistics of batch normalization.
///
/// Shapes:   x of rank 2 or more, channels on options.axis; `moments` is resized to one entry per channel.
/// Computes: mean = sum x / count, m2 = sum (x - mean)^2, both in one reading of x. An x without values gives count 0.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error when the axis is out of range; then nothing has been written.
/// Source:   Chan, Golub and LeVeque 1979.
template <Device D, class X>
void collect_moments(const D& device, const X& x, BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                     const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  detail::require_tensor<X>();
  const Index axis = detail::resolve_axis<X>("collect_moments", options.axis);
  detail::check_memory("collect_moments", "x", x);
  detail::WorkspaceOrOwn<T> memory(workspace);
  detail::collect_moments(device, detail::View<const T>(detail::view_of(x, axis)), moments, memory.get());
}

/// Normalizes x with the given moments: those of its own batch, of all ranks, or RunningStatistics::moments().
///
/// Shapes:   x, y any rank and equal, y is resized where it owns its memory; moments, gamma, beta one entry per
///           channel; an empty gamma stands for 1, an empty beta for 0. The scalars of x and y are equal, or any of
///           float, Eigen::bfloat16 and Eigen::half.
/// Computes: y = gamma * (x - mean) * inv_std + beta, inv_std = 1 / sqrt(var + epsilon). Where var + epsilon is 0,
///           y = beta.
/// Aliasing: y may be x. No other overlap.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit; then nothing has been written.
/// Source:   Ioffe and Szegedy 2015, algorithm 1.
template <Device D, class X, class Y>
void normalize(const D& device, const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& beta, Y&& y,
               const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "normalize";
  detail::require_tensor<X>();
  detail::require_output<X, Y>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::View<const T> x_view = detail::view_of(x, axis);
  const Index channels = x_view.shape.channels;
  detail::check_epsilon(function, options.epsilon);
  detail::check_moments(function, moments, x_view.shape);
  detail::check_optional_length(function, "gamma", gamma.size(), channels);
  detail::check_optional_length(function, "beta", beta.size(), channels);
  detail::check_output(function, "y", y, x);
  detail::check_overlap(function, "y", y, "x", x);
  detail::resize_like(y, x);
  detail::WorkspaceOrOwn<T> memory(workspace);
  detail::normalize(
      device, detail::Inputs(x_view), detail::view_of(y, axis),
      detail::FillNormalize<T>{
          detail::view_of(moments), {detail::data_or_null(gamma), detail::data_or_null(beta)}, options.epsilon},
      memory.get());
}

/// On the calling thread.
template <class X>
void collect_moments(const X& x, BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments, const Options& options = {},
                     Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  collect_moments(Eigen::DefaultDevice{}, x, moments, options, workspace);
}

/// On the calling thread.
template <class X, class Y>
void normalize(const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& beta, Y&& y,
               const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  normalize(Eigen::DefaultDevice{}, x, moments, gamma, beta, std::forward<Y>(y), options, workspace);
}

}  // namespace batchnorm
