#pragma once

#include "batchnorm/detail/layer.hpp"

// The forward calls of a BatchNorm, behind the checks of types: checks of values, then passes over memory. Calls
// that see the activation are qualified: its own namespace may have the same names.

namespace batchnorm::detail {

template <class Scalar, class Act>
void use_running_statistics(Layer<Scalar, Act>& layer) {
  layer.moments.count = StatisticOf<Scalar>(1);
  layer.moments.mean = layer.running.mean;
  layer.moments.m2 = layer.running.var;
}

template <class Scalar, class Act, class X>
void remember_forward(Layer<Scalar, Act>& layer, LastForward::Kind kind, const X& x) {
  layer.last_forward.remember(kind, x, layer.normalizes_batch() ? Statistics::of_batch : Statistics::constant);
  if (x.size() == 0) layer.inv_std.setZero();  // no pass will keep it
}

template <class Scalar, class Act, class In, class Out>
void normalize_into(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& in, const Out& out) {
  if (layer.normalizes_batch()) {
    detail::normalize_batch(device, in, out, layer.moments, layer.parameters(), layer.options.epsilon, layer.activation,
                            layer.inv_std.data(), layer.workspace);
    if (layer.training) layer.running.update(layer.moments);
  } else {
    detail::use_running_statistics(layer);
    detail::normalize(device, in, out, layer.fill_and_keep(), layer.workspace);
  }
}

/// What forward_add writes.
template <class Scalar, class Act>
using OutputOfSum = std::conditional_t<has_two_slopes<Act>, TwoOutputs<Scalar, Bit>, View<Scalar>>;

/// `z`: the residual, or none.
template <class Scalar, class Act, class X, class Y, class... Z>
void run_forward(Layer<Scalar, Act>& layer, const char* function, const AnyDevice& device, Y& y, const X& x,
                 const Z&... z) {
  const Index axis = layer.check_forward(function, layer.normalizes_batch(), y, x, z...);
  resize_like(y, x);
  const Inputs in(view_of(x, axis), view_of(z, axis)...);
  const auto y_view = view_of(y, axis);
  if constexpr (sizeof...(Z) > 0 && has_two_slopes<Act>) {
    const auto slopes = layer.slopes.reserve(in.shape());
    detail::remember_forward(layer, LastForward::Kind::add, x);
    detail::normalize_into(layer, device, in, TwoOutputs{y_view, slopes});
  } else {
    detail::remember_forward(layer, sizeof...(Z) == 0 ? LastForward::Kind::plain : LastForward::Kind::add, x);
    detail::normalize_into(layer, device, in, y_view);
  }
}

template <class Scalar, class Act, class In, class Out>
void normalize_weighted(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& x_weights, const View<Out>& y) {
  const bool masked = layer.masked_outputs == MaskedOutputs::zero;
  if (layer.normalizes_batch() && masked) {
    detail::normalize_masked_batch(device, x_weights, y, layer.moments, layer.parameters(), layer.options.epsilon,
                                   layer.activation, layer.inv_std.data(), layer.workspace);
  } else if (layer.normalizes_batch()) {
    detail::collect_weighted_moments(device, x_weights, layer.moments, layer.workspace);
  } else {
    detail::use_running_statistics(layer);
    if (masked) detail::normalize_masked(device, x_weights, y, layer.fill_and_keep(), layer.workspace);
  }
  if (!masked)
    detail::normalize(device, Inputs(x_weights.template get<0>()), y, layer.fill_and_keep(), layer.workspace);
  if (layer.training) layer.running.update(layer.moments);
}

template <class Scalar, class Act, class X, class W, class Y>
void run_forward_weighted(Layer<Scalar, Act>& layer, const AnyDevice& device, const X& x, const W& weights, Y& y,
                          MaskedOutputs outputs) {
  constexpr const char* function = "forward_weighted";
  const Index axis = layer.check_forward(function, layer.normalizes_batch(), y, x);
  take_weights(function, weights, x, axis, layer.given_weights);
  check_apart(function, "y", y, "weights", weights);
  if (layer.normalizes_batch()) {
    const bool unbiased =
        layer.training && layer.has_running_statistics() && layer.options.running_variance == Variance::unbiased;
    check_weighted_batch(function, layer.given_weights, outputs, layer.options.single_value, unbiased);
  }
  resize_like(y, x);
  layer.weights.swap(layer.given_weights);
  layer.masked_outputs = outputs;
  const auto x_view = view_of(x, axis);
  detail::remember_forward(layer, LastForward::Kind::weighted, x);
  detail::normalize_weighted(layer, device, Inputs(x_view, weights_view(layer.weights, x_view.shape)),
                             view_of(y, axis));
}

template <class Scalar, class Act, class In, class Out>
void infer_into(const Layer<Scalar, Act>& layer, const AnyDevice& device, const In& in, const Out& out) {
  const typename WorkspacePool<Scalar>::Loan memory(layer.pool);
  if (layer.has_running_statistics()) {
    detail::normalize(device, in, out, layer.fill(view_of(layer.running)), memory->workspace);
  } else {
    detail::normalize_batch(device, in, out, memory->moments, layer.parameters(), layer.options.epsilon,
                            layer.activation, nullptr, memory->workspace);
  }
}

/// `z`: the residual, or none.
template <class Scalar, class Act, class X, class Y, class... Z>
void run_infer(const Layer<Scalar, Act>& layer, const char* function, const AnyDevice& device, Y& y, const X& x,
               const Z&... z) {
  const Index axis = layer.check_forward(function, !layer.has_running_statistics(), y, x, z...);
  resize_like(y, x);
  detail::infer_into(layer, device, Inputs(view_of(x, axis), view_of(z, axis)...), view_of(y, axis));
}

}  // namespace batchnorm::detail
