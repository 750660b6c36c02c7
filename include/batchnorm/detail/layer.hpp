#pragma once

#include <string>

#include "batchnorm/backward_options.hpp"
#include "batchnorm/detail/gradients.hpp"
#include "batchnorm/detail/last_forward.hpp"
#include "batchnorm/detail/weights.hpp"
#include "batchnorm/detail/workspace_pool.hpp"

namespace batchnorm::detail {

/// What a BatchNorm holds, the checks of its calls, and what their passes take from it.
template <class Scalar, Activation Act>
struct Layer {
  using Parameter = ParameterOf<Scalar>;
  using Statistic = StatisticOf<Scalar>;
  using Forward = LastForward::Kind;

  Options options;
  Act activation;
  BasicRunningStatistics<Statistic> running;
  Vector<Parameter> gamma, beta, gamma_gradient, beta_gradient;
  bool training = true;
  LastForward last_forward;
  BasicMoments<Statistic> moments;                     // of the last forward
  Vector<Statistic> inv_std;                           // of the last forward
  Bits slopes;                                         // whether act' was 1 at each value of the last forward_add
  Vector<Parameter> weights;                           // of every position in the last forward_weighted
  MaskedOutputs masked_outputs = MaskedOutputs::zero;  // in the last forward_weighted
  BasicGradientSums<Statistic> sums;                   // of the last backward
  Vector<Parameter> given_weights;                     // scratch: those of a call that has not been checked
  Vector<Statistic> centers;                           // scratch: of every channel, in a backward from the output
  Workspace<Scalar> workspace;
  mutable WorkspacePool<Scalar> pool;

  Layer(Index channel_count, const Options& layer_options, const Act& act)
      : options(checked(channel_count, layer_options)),
        activation(act),
        running(channel_count, options.average, options.running_variance),
        gamma(Vector<Parameter>::Ones(has_gamma() ? channel_count : 0)),
        beta(Vector<Parameter>::Zero(has_beta() ? channel_count : 0)),
        gamma_gradient(Vector<Parameter>::Zero(gamma.size())),
        beta_gradient(Vector<Parameter>::Zero(beta.size())),
        moments(channel_count),
        inv_std(Vector<Statistic>::Zero(channel_count)),
        sums(channel_count) {}

  static const Options& checked(Index channels, const Options& options) {
    check_channel_count("BatchNorm", channels);
    check_epsilon("BatchNorm", options.epsilon);
    return options;
  }

  Index channels() const { return sums.channels(); }
  bool has_gamma() const { return options.affine == Affine::scale_and_shift || options.affine == Affine::scale; }
  bool has_beta() const { return options.affine == Affine::scale_and_shift || options.affine == Affine::shift; }
  bool has_running_statistics() const { return options.average.rule != RunningAverage::Rule::none; }
  bool normalizes_batch() const { return training || !has_running_statistics(); }
  bool wants(ParameterGradients parameters) const {
    return parameters != ParameterGradients::skip && (has_gamma() || has_beta());
  }

  void zero_gradients() {
    gamma_gradient.setZero();
    beta_gradient.setZero();
  }

  Index workspace_bytes() const {
    const std::size_t own = static_cast<std::size_t>(weights.size() + given_weights.size()) * sizeof(Parameter) +
                            static_cast<std::size_t>(centers.size()) * sizeof(Statistic);
    return workspace.bytes() + pool.bytes() + slopes.bytes() + static_cast<Index>(own);
  }

  Parameters<Scalar> parameters() const { return {data_or_null(gamma), data_or_null(beta)}; }
  FillNormalize<Scalar, Act> fill(const MomentsView<Statistic>& with) const {
    return {with, parameters(), options.epsilon, activation};
  }
  /// For the forward that runs: keeps inv_std for its backward.
  FillNormalize<Scalar, Act> fill_and_keep() {
    return {view_of(moments), parameters(), options.epsilon, activation, inv_std.data()};
  }
  /// What the last forward normalized with, and its inv_std.
  MomentsView<Statistic> last_moments() const {
    return {moments.count, moments.mean.data(), moments.m2.data(), inv_std.data()};
  }
  /// Of the last forward, with `act` for what follows the normalization.
  template <class A>
  FillInputGradient<Scalar, A> fill_input_gradient(const A& act,
                                                   const BackwardOptions<Statistic>& backward_options) const {
    const auto data = [](const Vector<Statistic>* vector) { return vector == nullptr ? nullptr : vector->data(); };
    const auto* const batch_sums = last_forward.of_batch() ? &sums : nullptr;
    const StatisticGradients<Statistic> of_statistics{data(backward_options.mean), data(backward_options.var)};
    return {last_moments(), batch_sums, parameters(), options.epsilon, act, of_statistics};
  }

  void check_lengths(const char* function) const {
    check_length(function, "gamma", gamma.size(), has_gamma() ? channels() : 0);
    check_length(function, "beta", beta.size(), has_beta() ? channels() : 0);
    check_length(function, "gamma_gradient", gamma_gradient.size(), gamma.size());
    check_length(function, "beta_gradient", beta_gradient.size(), beta.size());
    check_length(function, "running_mean", running.mean.size(), channels());
    check_length(function, "running_var", running.var.size(), channels());
  }

  /// The checks of forward and infer; returns the axis counted from the front. `z`: the residual, or none.
  template <class X, class Y, class... Z>
  Index check_forward(const char* function, bool of_batch, const Y& y, const X& x, const Z&... z) const {
    const Index axis = resolve_axis<X>(function, options.axis);
    check_channels(function, x, axis, channels());
    check_lengths(function);
    if (of_batch) {
      check_single_value(function, resolve_shape(x, axis), options.single_value);
    } else {
      check_not_negative(function, "running_var", running.var);
    }
    (check_same_dimensions(function, "z", z, x), ...);
    check_output(function, "y", y, x);
    check_overlap(function, "y", y, "x", x);
    (check_overlap(function, "y", y, "z", z), ...);
    return axis;
  }

  /// The checks of the inputs of every backward; returns the axis counted from the front.
  template <class X, class DY>
  Index check_backward(const char* function, Forward forward, const X& x,
                       const BackwardOptions<Statistic>& backward_options, const DY& dy,
                       const char* x_name = "x") const {
    const Index axis = resolve_axis<X>(function, options.axis);
    last_forward.check(function, forward, x_name, x);
    check_lengths(function);
    check_same_dimensions(function, "dy", dy, x);
    check_memory(function, x_name, x);
    check_memory(function, "dy", dy);
    check_statistic_gradient(function, "options.mean", backward_options.mean);
    check_statistic_gradient(function, "options.var", backward_options.var);
    return axis;
  }

  void check_statistic_gradient(const char* function, const char* name, const Vector<Statistic>* gradient) const {
    if (gradient == nullptr) return;
    check_length(function, name, gradient->size(), channels());
    if (last_forward.of_batch()) return;
    fail(function,
         std::string(name) + " is given; the last forward normalized with running statistics, which are constants");
  }
};

}  // namespace batchnorm::detail
