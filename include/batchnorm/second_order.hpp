#pragma once

#include <array>
#include <utility>

#include "batchnorm/detail/direction.hpp"

// Derivatives of batch normalization that backward does not give: forward mode (Jacobian-vector products) and double
// backward (the gradient of a function of gradients, Hessian-vector products).

namespace batchnorm {

/// A direction in the space of x, gamma and beta: `Direction{x_part}` or `Direction{x_part, gamma_part, beta_part}`. A
/// gamma or beta part without entries is zero.
template <class X>
struct Direction {
  using Parameters = Vector<ParameterOf<detail::ScalarOf<X>>>;
  const X& x;
  Eigen::Ref<const Parameters> gamma = Parameters();
  Eigen::Ref<const Parameters> beta = Parameters();
};

template <class X, class... Parameters>
Direction(const X&, const Parameters&...) -> Direction<X>;

/// Where double_backward writes: `SecondGradients{x_gradient, dy_gradient, gamma_gradient}`.
template <class GX, class GDY, class GGamma>
struct SecondGradients {
  GX&& x;
  GDY&& dy;
  GGamma& gamma;
};

template <class GX, class GDY, class GGamma>
SecondGradients(GX&&, GDY&&, GGamma&) -> SecondGradients<GX, GDY, GGamma>;

namespace detail {

/// What jvp and double_backward are given alike.
template <class X, class V>
void check_direction(const char* function, const X& x, const Shape& shape,
                     const BasicMoments<StatisticOf<ScalarOf<X>>>& moments, Index gamma_length,
                     const Direction<V>& direction, const Options& options, Statistics statistics) {
  check_epsilon(function, options.epsilon);
  check_same_dimensions(function, "direction.x", direction.x, x);
  if (statistics == Statistics::of_batch) {
    check_moments_of_x(function, moments, shape, "; Statistics::constant takes any");
  } else {
    check_moments(function, moments, shape);
  }
  check_optional_length(function, "gamma", gamma_length, shape.channels);
  check_optional_length(function, "direction.gamma", direction.gamma.size(), shape.channels);
  check_optional_length(function, "direction.beta", direction.beta.size(), shape.channels);
}

/// What only double_backward is given.
template <class X, class DY, class V, class GX, class GDY, class GGamma>
void check_second_gradients(const char* function, const X& x, const DY& dy, const Direction<V>& direction,
                            const SecondGradients<GX, GDY, GGamma>& gradients) {
  check_same_dimensions(function, "dy", dy, x);
  check_output(function, "gradients.x", gradients.x, x);
  check_output(function, "gradients.dy", gradients.dy, x);
  check_memory(function, "gradients.dy", gradients.dy);
  check_overlap(function, "gradients.x", gradients.x, "x", x);
  check_overlap(function, "gradients.x", gradients.x, "dy", dy);
  check_overlap(function, "gradients.x", gradients.x, "direction.x", direction.x);
  check_apart(function, "gradients.dy", gradients.dy, "x", x);
  check_apart(function, "gradients.dy", gradients.dy, "dy", dy);
  check_apart(function, "gradients.dy", gradients.dy, "direction.x", direction.x);
  check_apart(function, "gradients.dy", gradients.dy, "gradients.x", gradients.x);
}

}  // namespace detail

/// Forward mode: how y moves as x, gamma and beta move in a direction (a Jacobian-vector product).
///
/// Shapes:   x, direction.x, ty any rank and equal (their scalars mix as in normalize), ty is resized where it owns its
///           memory; moments, gamma and the direction's gamma and beta one entry per channel; an empty gamma stands
///           for 1.
/// Computes: ty = gamma * inv_std * (v - sum(v) / n - xhat * sum(v * xhat) / n) + v_gamma * xhat + v_beta, where v,
///           v_gamma and v_beta are the parts of the direction. Constant statistics leave the two sums out.
/// Aliasing: ty may be direction.x, or x. No other overlap.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit, or on statistics of the batch with moments of
///           another count than that of x; then nothing has been written.
template <Device D, class X, class V, class TY>
void jvp(const D& device, const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
         const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma, const Direction<V>& direction,
         TY&& ty, const Options& options = {}, Statistics statistics = Statistics::of_batch,
         Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  using Sums = detail::DirectionSums<StatisticOf<T>>;
  constexpr const char* function = "jvp";
  detail::require_tensor<X>();
  detail::require_input<X, V>();
  detail::require_output<X, TY>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::Inputs x_v(detail::view_of(x, axis), detail::view_of(direction.x, axis));
  const Shape& shape = x_v.shape();
  detail::check_direction(function, x, shape, moments, gamma.size(), direction, options, statistics);
  detail::check_output(function, "ty", ty, x);
  detail::check_overlap(function, "ty", ty, "x", x);
  detail::check_overlap(function, "ty", ty, "direction.x", direction.x);
  detail::resize_like(ty, x);
  if (shape.size() == 0) return;
  detail::WorkspaceOrOwn<T> memory(workspace);
  const Sums sums(memory.get().keep(Sums::arrays * shape.channels), shape.channels);
  const detail::FillTangent<T> fill{detail::view_of(moments),
                                    sums,
                                    detail::data_or_null(gamma),
                                    detail::data_or_null(direction.gamma),
                                    detail::data_or_null(direction.beta),
                                    options.epsilon};
  detail::tangent(device, x_v, detail::view_of(ty, axis), fill, statistics, memory.get());
}

/// Double backward: the gradients of a loss that depends on dx, dgamma and dbeta, such as a gradient penalty.
/// direction.x is the gradient of that loss with respect to dx, direction.gamma and direction.beta are those with
/// respect to dgamma and dbeta; `gradients` receives those with respect to x, dy and gamma.
///
/// Also the Hessian-vector product of sum(dy * y): gradients.x and gradients.gamma are how dx and dgamma move as x,
/// gamma and beta move in the direction with dy fixed, and gradients.dy is how y moves (jvp).
///
/// Shapes:   x, dy, direction.x, gradients.x, gradients.dy any rank and equal (their scalars mix as in normalize);
///           moments, gamma and the direction's gamma and beta one entry per channel; an empty gamma stands for 1. What
///           is in `gradients` is resized where it owns its memory, and overwritten.
/// Computes: with v, v_gamma and v_beta for the parts of the direction, bars for means over the channel,
///           a = mean(dy * xhat) and b = mean(v * xhat):
///           x:     gamma * inv_std^2 * (xhat * (3 * a * b - mean(v * (dy - dy_bar))) - b * (dy - dy_bar)
///                  - a * (v - v_bar)) + v_gamma * inv_std * (dy - dy_bar - xhat * a)
///           dy:    gamma * inv_std * (v - v_bar - xhat * b) + v_gamma * xhat + v_beta
///           gamma: inv_std * n * (mean(v * (dy - dy_bar)) - a * b)
///           With constant statistics:
///           x:     v_gamma * inv_std * dy
///           dy:    gamma * inv_std * v + v_gamma * xhat + v_beta
///           gamma: inv_std * sum(v * dy)
/// Aliasing: gradients.x may be x, dy or direction.x; gradients.dy lies apart from them and from gradients.x.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit, or on statistics of the batch with moments of
///           another count than that of x; then nothing has been written.
/// Source:   Gulrajani et al. 2017 (gradient penalty); Pearlmutter 1994 (Hessian-vector product).
template <Device D, class X, class DY, class V, class GX, class GDY, class GGamma>
void double_backward(const D& device, const X& x, const DY& dy,
                     const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                     const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                     const Direction<V>& direction, const SecondGradients<GX, GDY, GGamma>& gradients,
                     const Options& options = {}, Statistics statistics = Statistics::of_batch,
                     Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  using Sums = detail::DirectionSums<StatisticOf<T>>;
  constexpr const char* function = "double_backward";
  detail::require_tensor<X>();
  detail::require_input<X, DY>();
  detail::require_input<X, V>();
  detail::require_output<X, GX>();
  detail::require_output<X, GDY>();
  static_assert(std::is_same_v<GGamma, Vector<ParameterOf<T>>>,
                "batchnorm: gradients.gamma is a Vector of the scalar of gamma.");
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::Inputs x_dy_v(detail::view_of(x, axis), detail::view_of(dy, axis), detail::view_of(direction.x, axis));
  const Shape& shape = x_dy_v.shape();
  detail::check_direction(function, x, shape, moments, gamma.size(), direction, options, statistics);
  detail::check_second_gradients(function, x, dy, direction, gradients);
  detail::resize_like(gradients.x, x);
  detail::resize_like(gradients.dy, x);
  if (shape.size() == 0) {
    gradients.gamma.setZero(shape.channels);
    return;
  }
  detail::WorkspaceOrOwn<T> memory(workspace);
  const auto moments_view = detail::view_of(moments);
  const auto* const v_gamma = detail::data_or_null(direction.gamma);
  const Sums sums(memory.get().keep(Sums::arrays * shape.channels), shape.channels);
  const detail::FillTangent<T> fill_tangent{
      moments_view, sums, detail::data_or_null(gamma), v_gamma, detail::data_or_null(direction.beta), options.epsilon};
  const auto& [x_view, dy_view, v_view] = x_dy_v.views;
  detail::tangent(device, detail::Inputs(x_view, v_view), detail::view_of(gradients.dy, axis), fill_tangent, statistics,
                  memory.get());
  detail::sum_products(device, x_dy_v, moments_view, sums, statistics, memory.get());
  const auto gx = detail::view_of(gradients.x, axis);
  if (statistics == Statistics::of_batch) {
    const detail::FillSecondGradient<T> fill{moments_view, sums, detail::data_or_null(gamma), v_gamma, options.epsilon};
    detail::second_input_gradient(device, x_dy_v, gx, fill, memory.get());
  } else if (v_gamma != nullptr) {
    const detail::FillScale<T> fill{moments_view, v_gamma, options.epsilon};
    detail::scale_gradient(device, dy_view, gx, fill, memory.get());
  } else {
    gradients.x.setZero();
  }
  gradients.gamma.resize(shape.channels);
  detail::second_gamma_gradient(moments_view, sums, options.epsilon, gradients.gamma.data(), shape.channels);
}

/// On the calling thread.
template <class X, class V, class TY>
void jvp(const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
         const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma, const Direction<V>& direction,
         TY&& ty, const Options& options = {}, Statistics statistics = Statistics::of_batch,
         Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  jvp(Eigen::DefaultDevice{}, x, moments, gamma, direction, std::forward<TY>(ty), options, statistics, workspace);
}

/// On the calling thread.
template <class X, class DY, class V, class GX, class GDY, class GGamma>
void double_backward(const X& x, const DY& dy, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                     const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                     const Direction<V>& direction, const SecondGradients<GX, GDY, GGamma>& gradients,
                     const Options& options = {}, Statistics statistics = Statistics::of_batch,
                     Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  double_backward(Eigen::DefaultDevice{}, x, dy, moments, gamma, direction, gradients, options, statistics, workspace);
}

}  // namespace batchnorm
