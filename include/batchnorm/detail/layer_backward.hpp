#pragma once

#include "batchnorm/detail/from_output.hpp"
#include "batchnorm/detail/layer.hpp"

// The backward calls of a BatchNorm, behind the checks of types: checks of values, then passes over memory. Calls
// that see the activation are qualified: its own namespace may have the same names.

namespace batchnorm::detail {

template <class Scalar, class Act>
void take_parameter_gradients(Layer<Scalar, Act>& layer, ParameterGradients parameters) {
  if (!layer.wants(parameters)) return;
  if (parameters == ParameterGradients::overwrite) layer.zero_gradients();
  add_gamma_gradient(layer.last_moments(), layer.sums.dy_centered.data(), layer.options.epsilon,
                     layer.gamma_gradient.data(), layer.gamma_gradient.size());
  add_beta_gradient(layer.sums.dy.data(), layer.beta_gradient.data(), layer.beta_gradient.size());
}

/// Where the statistics are constants, dx does not wait for any sum.
template <class Scalar, class Act, class In, class Out>
void differentiate_constants(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& x_dy, const View<Out>& dx,
                             const BackwardOptions<StatisticOf<Scalar>>& options) {
  const auto moments = layer.last_moments();
  if (layer.wants(options.parameters)) {
    detail::collect_gradients(device, x_dy, layer.fill(moments), layer.sums, layer.workspace);
  }
  if constexpr (is_identity<Act>) {
    const FillScale<Scalar> fill_scale{moments, layer.parameters().gamma, layer.options.epsilon};
    detail::scale_gradient(device, x_dy.template get<1>(), dx, fill_scale, layer.workspace);
  } else {
    detail::input_gradient(device, x_dy, dx, layer.fill_input_gradient(layer.activation, options), layer.workspace);
  }
}

template <class Scalar, class Act, class In, class Out>
void differentiate(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& x_dy, const View<Out>& dx,
                   const BackwardOptions<StatisticOf<Scalar>>& options) {
  if (layer.last_forward.of_batch()) {
    detail::differentiate_batch(device, x_dy, dx, layer.fill_input_gradient(layer.activation, options), layer.sums,
                                layer.workspace);
  } else {
    detail::differentiate_constants(layer, device, x_dy, dx, options);
  }
  detail::take_parameter_gradients(layer, options.parameters);
}

template <class Scalar, class Act, class X, class DY, class DX>
void run_backward(Layer<Scalar, Act>& layer, const AnyDevice& device, const X& x, const DY& dy, DX& dx,
                  const BackwardOptions<StatisticOf<Scalar>>& options) {
  constexpr const char* function = "backward";
  const Index axis = layer.check_backward(function, LastForward::Kind::plain, x, options, dy);
  check_input_gradient(function, "x", x, dy, dx);
  resize_like(dx, x);
  detail::differentiate(layer, device, Inputs(view_of(x, axis), view_of(dy, axis)), view_of(dx, axis), options);
}

template <class Scalar, class Act, class In>
void differentiate_parameters(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& x_dy,
                              ParameterGradients parameters) {
  if (!layer.wants(parameters)) return;
  detail::collect_gradients(device, x_dy, layer.fill(layer.last_moments()), layer.sums, layer.workspace);
  detail::take_parameter_gradients(layer, parameters);
}

template <class Scalar, class Act, class X, class DY>
void run_backward_parameters(Layer<Scalar, Act>& layer, const AnyDevice& device, const X& x, const DY& dy,
                             ParameterGradients parameters) {
  const Index axis =
      layer.check_backward("backward_parameters", LastForward::Kind::plain, x, {.parameters = parameters}, dy);
  detail::differentiate_parameters(layer, device, Inputs(view_of(x, axis), view_of(dy, axis)), parameters);
}

/// What the gradient of a sum goes through.
template <class Act>
using SlopeOfSum = std::conditional_t<has_two_slopes<Act>, KnownSlope<Act>, Act>;

/// What backward_add reads: the inputs of SumGradientFormula<SlopeOfSum<Act>>.
template <class Scalar, class Act>
using KnownOfSum =
    std::conditional_t<has_two_slopes<Act>, Inputs<Scalar, Bit, Scalar>,
                       std::conditional_t<is_identity<Act>, Inputs<Scalar, Scalar>, Inputs<Scalar, Scalar, Scalar>>>;

template <class Scalar, class Act, class In, class DX, class DZ>
void differentiate_add(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& known,
                       const TwoOutputs<DX, DZ>& dx_dz, const BackwardOptions<StatisticOf<Scalar>>& options) {
  const FillSumInputGradient<Scalar, SlopeOfSum<Act>> fill_dx{layer.fill_input_gradient(Identity(), options),
                                                              {layer.activation}};
  if (layer.last_forward.of_batch()) {
    detail::differentiate_sum(device, known, dx_dz, fill_dx, layer.sums, layer.workspace);
  } else {
    if (layer.wants(options.parameters)) {
      detail::collect_sum_gradients(device, known, fill_dx, layer.sums, layer.workspace);
    }
    detail::sum_input_gradient(device, known, dx_dz, fill_dx, layer.workspace);
  }
  detail::take_parameter_gradients(layer, options.parameters);
}

/// `y`: the output of forward_add, for an activation without two slopes. (Without it such a call does not compile;
/// BatchNorm::backward_add says why.)
template <class Scalar, class Act, class X, class DY, class DX, class DZ, class... Y>
void run_backward_add(Layer<Scalar, Act>& layer, const AnyDevice& device, const X& x, const DY& dy, DX& dx, DZ& dz,
                      const BackwardOptions<StatisticOf<Scalar>>& options, const Y&... y) {
  constexpr const char* function = "backward_add";
  const Index axis = layer.check_backward(function, LastForward::Kind::add, x, options, dy);
  (check_same_dimensions(function, "y", y, x), ...);
  check_input_gradient(function, "x", x, dy, dx);
  check_input_gradient(function, "x", x, dy, dz, "dz");
  (check_overlap(function, "dx", dx, "y", y), ...);
  (check_overlap(function, "dz", dz, "y", y), ...);
  check_apart(function, "dx", dx, "dz", dz);
  resize_like(dx, x);
  resize_like(dz, x);
  const auto x_view = view_of(x, axis);
  const auto dy_view = view_of(dy, axis);
  const TwoOutputs dx_dz{view_of(dx, axis), view_of(dz, axis)};
  if constexpr (has_two_slopes<Act>) {
    const Inputs known(x_view, layer.slopes.view(x_view.shape), dy_view);
    detail::differentiate_add(layer, device, known, dx_dz, options);
  } else if constexpr (is_identity<Act> || sizeof...(Y) > 0) {
    detail::differentiate_add(layer, device, Inputs(x_view, view_of(y, axis)..., dy_view), dx_dz, options);
  }
}

template <class Scalar, class Act, class In, class Out>
void differentiate_from_output(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& y_dy, const View<Out>& dx,
                               ParameterGradients parameters) {
  const bool of_batch = layer.last_forward.of_batch();
  const FillInputGradientOfOutput<Scalar, Act> fill_dx{layer.last_moments(), of_batch ? &layer.sums : nullptr,
                                                       layer.parameters(), layer.options.epsilon, layer.activation};
  if (of_batch || layer.wants(parameters)) {
    detail::collect_gradients_of_output(device, y_dy, fill_dx, layer.sums, layer.centers, layer.workspace);
  }
  detail::input_gradient_of_output(device, y_dy, dx, fill_dx, layer.workspace);
  detail::take_parameter_gradients(layer, parameters);
}

template <class Scalar, class Act, class Y, class DY, class DX>
void run_backward_from_output(Layer<Scalar, Act>& layer, const AnyDevice& device, const Y& y, const DY& dy, DX& dx,
                              ParameterGradients parameters) {
  constexpr const char* function = "backward_from_output";
  const Index axis = layer.check_backward(function, LastForward::Kind::plain, y, {.parameters = parameters}, dy, "y");
  check_input_gradient(function, "y", y, dy, dx);
  detail::check_invertible(function, layer.gamma, layer.activation);
  resize_like(dx, y);
  detail::differentiate_from_output(layer, device, Inputs(view_of(y, axis), view_of(dy, axis)), view_of(dx, axis),
                                    parameters);
}

template <class Scalar, class Act, class In, class Out>
void differentiate_weighted(Layer<Scalar, Act>& layer, const AnyDevice& device, const In& x_dy_weights,
                            const View<Out>& dx, const BackwardOptions<StatisticOf<Scalar>>& options) {
  const auto fill_dx = layer.fill_input_gradient(layer.activation, options);
  if (layer.masked_outputs == MaskedOutputs::zero) {
    detail::differentiate_masked(device, x_dy_weights, dx, fill_dx, layer.sums, layer.workspace);
  } else {
    const Inputs x_dy(x_dy_weights.template get<0>(), x_dy_weights.template get<1>());
    detail::collect_gradients(device, x_dy, layer.fill(layer.last_moments()), layer.sums, layer.workspace);
    detail::weighted_input_gradient(device, x_dy_weights, dx, fill_dx, layer.workspace);
  }
  detail::take_parameter_gradients(layer, options.parameters);
}

template <class Scalar, class Act, class X, class W, class DY, class DX>
void run_backward_weighted(Layer<Scalar, Act>& layer, const AnyDevice& device, const X& x, const W& weights,
                           const DY& dy, DX& dx, MaskedOutputs outputs,
                           const BackwardOptions<StatisticOf<Scalar>>& options) {
  constexpr const char* function = "backward_weighted";
  const Index axis = layer.check_backward(function, LastForward::Kind::weighted, x, options, dy);
  check_input_gradient(function, "x", x, dy, dx);
  take_weights(function, weights, x, axis, layer.given_weights);
  if (layer.given_weights != layer.weights) fail(function, "weights are not those of the last forward_weighted");
  if (outputs != layer.masked_outputs) {
    fail(function, "outputs is not the MaskedOutputs of the last forward_weighted");
  }
  check_apart(function, "dx", dx, "weights", weights);
  resize_like(dx, x);
  const auto x_view = view_of(x, axis);
  const Inputs in(x_view, view_of(dy, axis), weights_view(layer.weights, x_view.shape));
  detail::differentiate_weighted(layer, device, in, view_of(dx, axis), options);
}

}  // namespace batchnorm::detail
