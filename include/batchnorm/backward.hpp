#pragma once

#include <utility>

#include "batchnorm/detail/gradients.hpp"

namespace batchnorm {

/// The sums of a batch that its gradients need.
///
/// Shapes:   x, dy any rank and equal; moments one entry per channel; `sums` is resized to that. The scalars mix as in
///           normalize.
/// Computes: sums.dy = sum dy, sums.dy_centered = sum dy * (x - mean).
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape, moments or an axis that does not fit; then nothing has been written.
template <Device D, class X, class DY>
void collect_gradients(const D& device, const X& x, const DY& dy,
                       const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                       BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, const Options& options = {},
                       Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "collect_gradients";
  detail::require_tensor<X>();
  detail::require_input<X, DY>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::Inputs views(detail::view_of(x, axis), detail::view_of(dy, axis));
  detail::check_same_dimensions(function, "dy", dy, x);
  detail::check_memory(function, "x", x);
  detail::check_memory(function, "dy", dy);
  detail::check_moments(function, moments, views.shape());
  detail::WorkspaceOrOwn<T> memory(workspace);
  detail::collect_gradients(device, views, detail::FillNormalize<T>{detail::view_of(moments), {}, options.epsilon},
                            sums, memory.get());
}

/// The gradient of x, from sums over the whole batch that `moments` describes.
///
/// Shapes:   x, dy, dx any rank and equal, dx is resized where it owns its memory; moments, sums, gamma one entry per
///           channel; an empty gamma stands for 1. The scalars mix as in normalize.
/// Computes: dx = gamma * inv_std * (dy - sums.dy / n - (x - mean) * inv_std^2 * sums.dy_centered / n) with
///           n = moments.count. Sums of zero give the gradient where mean and var are constants.
/// Aliasing: dx may be dy, or x. No other overlap.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit; then nothing has been written.
/// Source:   Ioffe and Szegedy 2015, section 3.
template <Device D, class X, class DY, class DX>
void input_gradient(const D& device, const X& x, const DY& dy,
                    const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                    const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                    const BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, DX&& dx,
                    const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "input_gradient";
  detail::require_tensor<X>();
  detail::require_input<X, DY>();
  detail::require_output<X, DX>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::Inputs views(detail::view_of(x, axis), detail::view_of(dy, axis));
  const Index channels = views.shape().channels;
  detail::check_epsilon(function, options.epsilon);
  detail::check_same_dimensions(function, "dy", dy, x);
  detail::check_moments(function, moments, views.shape());
  detail::check_optional_length(function, "gamma", gamma.size(), channels);
  detail::check_length(function, "sums.dy", sums.dy.size(), channels);
  detail::check_length(function, "sums.dy_centered", sums.dy_centered.size(), channels);
  detail::check_input_gradient(function, "x", x, dy, dx);
  detail::resize_like(dx, x);
  detail::WorkspaceOrOwn<T> memory(workspace);
  const detail::FillInputGradient<T> fill{
      detail::view_of(moments), &sums, {detail::data_or_null(gamma), nullptr}, options.epsilon};
  detail::input_gradient(device, views, detail::view_of(dx, axis), fill, memory.get());
}

/// On the calling thread.
template <class X, class DY>
void collect_gradients(const X& x, const DY& dy, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                       BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, const Options& options = {},
                       Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  collect_gradients(Eigen::DefaultDevice{}, x, dy, moments, sums, options, workspace);
}

/// On the calling thread.
template <class X, class DY, class DX>
void input_gradient(const X& x, const DY& dy, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                    const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                    const BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, DX&& dx,
                    const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  input_gradient(Eigen::DefaultDevice{}, x, dy, moments, gamma, sums, std::forward<DX>(dx), options, workspace);
}

}  // namespace batchnorm
