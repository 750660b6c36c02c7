#pragma once

#include <utility>

#include "batchnorm/detail/from_output.hpp"
#include "batchnorm/detail/gradients.hpp"
#include "batchnorm/detail/last_forward.hpp"
#include "batchnorm/detail/weights.hpp"
#include "batchnorm/detail/workspace_pool.hpp"

namespace batchnorm {

/// What a backward does with the gradients of gamma and beta.
enum class ParameterGradients { add, overwrite, skip };

/// What a backward is asked for beside dx.
template <class Statistic>
struct BackwardOptions {
  ParameterGradients parameters = ParameterGradients::add;
  /// Gradients of the loss with respect to moments().mean and moments().var(), where those are outputs too.
  const Vector<Statistic>* mean = nullptr;
  const Vector<Statistic>* var = nullptr;
};

namespace detail {

template <class T>
inline constexpr bool is_backward_options = false;
template <class Statistic>
inline constexpr bool is_backward_options<BackwardOptions<Statistic>> = true;

/// What may be a tensor, where options may follow.
template <class T>
concept NoBackwardOptions = !is_backward_options<std::remove_cvref_t<T>>;

}  // namespace detail

/// A batch normalization layer: gamma, beta, their gradients and the running statistics, over the four phases, and
/// what follows in the same pass over memory: an activation, and the sum with a residual z before it.
///
/// Shapes:  x, y, z, dy, dx, dz of rank 2 or more and equal, `channels` entries on options.axis. An output is resized
///          where it owns its memory, and must fit where it does not.
/// Scalars: x has Scalar. Each other tensor has, too, or any of float, Eigen::bfloat16 and Eigen::half where Scalar is
///          one of them.
/// Threads: calls on one layer must not overlap, except those of `infer` and `infer_add`; the same bits for any number.
/// Throws:  batchnorm::Error, and then the layer and the outputs are what they were before the call.
/// Memory:  after the first call with a shape nothing is allocated (but to hand work to a thread pool).
template <class Scalar, Activation Act = Identity>
class BatchNorm {
  static_assert(!std::is_const_v<Scalar> && !std::is_reference_v<Scalar> && !std::is_integral_v<Scalar> &&
                    !Eigen::NumTraits<Scalar>::IsComplex,
                "batchnorm: a layer's scalar is float, double, Eigen::bfloat16, Eigen::half, or another type of real "
                "numbers.");

 public:
  using Parameter = ParameterOf<Scalar>;
  using Statistic = StatisticOf<Scalar>;
  using BackwardOptions = batchnorm::BackwardOptions<Statistic>;
  /// Whether backward_add does without y.
  static constexpr bool keeps_slopes = detail::is_identity<Act> || detail::has_two_slopes<Act>;

  /// Throws: batchnorm::Error when channels < 1, epsilon is negative or not finite, or the average has a weight outside
  ///         [0, 1] or a window below 1.
  explicit BatchNorm(Index channels, const Options& options = {}, const Act& activation = Act())
      : options_(checked(channels, options)),
        activation_(activation),
        running_(channels, options.average, options.running_variance),
        gamma_(Vector<Parameter>::Ones(has_gamma() ? channels : 0)),
        beta_(Vector<Parameter>::Zero(has_beta() ? channels : 0)),
        gamma_gradient_(Vector<Parameter>::Zero(gamma_.size())),
        beta_gradient_(Vector<Parameter>::Zero(beta_.size())),
        moments_(channels),
        inv_std_(Vector<Statistic>::Zero(channels)),
        sums_(channels) {}

  /// In training, normalizes x with its own statistics, and the running ones follow; in eval, with the running ones.
  ///
  /// Computes: y = act(gamma * (x - mean) * inv_std + beta), inv_std = 1 / sqrt(var + epsilon), var = m2 / count.
  /// Aliasing: y may be x (backward then wants x as it was). No other overlap.
  /// Throws:   batchnorm::Error on a shape that does not fit, a single value per channel in training, or a negative
  ///           running variance in eval.
  /// Source:   Ioffe and Szegedy 2015, algorithm 1.
  template <Device D, class X, class Y>
  void forward(const D& device, const X& x, Y&& y) {
    require_output<X, Y>();
    run_forward("forward", device, y, x);
  }

  /// The same with y = act(gamma * (x - mean) * inv_std + beta + z).
  ///
  /// Aliasing: y may be x, or z. No other overlap.
  template <Device D, class X, class Z, class Y>
  void forward_add(const D& device, const X& x, const Z& z, Y&& y) {
    require_output<X, Y>();
    run_forward("forward_add", device, y, x, z);
  }

  /// The same with statistics in which each position has a weight: padded sequences, ignored pixels, sample weights.
  /// A weight of n counts like n equal values, a weight of 0 like none, whatever x holds there. (One position alone is
  /// a single value, whatever its weight.)
  ///
  /// Shapes:   weights of the rank of x, 1 on the channel axis, and on each other axis either 1 or what x has; of any
  ///           scalar, bool too. They are held in the scalar of the parameters.
  /// Computes: mean = sum(w * x) / W, var = sum(w * (x - mean)^2) / W with W = sum(w); the running variance has W - 1
  ///           for W; y as in forward, and by default 0 where the weight is 0.
  /// Aliasing: y may be x. No other overlap.
  /// Throws:   as forward, and on a weight that is negative, not finite or out of the parameters' range, where none
  ///           counts and all outputs are wanted, or where W is hardly more than 1 and the running variance unbiased.
  template <Device D, class X, class W, class Y>
  void forward_weighted(const D& device, const X& x, const W& weights, Y&& y,
                        MaskedOutputs outputs = MaskedOutputs::zero) {
    constexpr const char* function = "forward_weighted";
    require_output<X, Y>();
    const Index axis = check_forward(function, normalizes_batch(), y, x);
    detail::take_weights(function, weights, x, axis, given_weights_);
    detail::check_apart(function, "y", y, "weights", weights);
    if (normalizes_batch()) {
      const bool unbiased = training_ && has_running_statistics() && options_.running_variance == Variance::unbiased;
      detail::check_weighted_batch(function, given_weights_, outputs, options_.single_value, unbiased);
    }
    detail::resize_like(y, x);
    weights_.swap(given_weights_);
    masked_outputs_ = outputs;
    const auto x_view = detail::view_of(x, axis);
    remember_forward(Forward::weighted, x);
    normalize_weighted(device, detail::Inputs(x_view, detail::weights_view(weights_, x_view.shape)),
                       detail::view_of(y, axis));
  }

  /// The gradients of the last forward. x and dy are those of that call; dx is overwritten, the gradients of gamma and
  /// beta are added to gamma_gradient() and beta_gradient(), unless `options` say otherwise.
  ///
  /// Computes: g = dy * act'(v), where v is what the activation saw (computed again from x);
  ///           dx = gamma * inv_std * (g - sum(g) / n - xhat * sum(g * xhat) / n) after training,
  ///           dx = gamma * inv_std * g after eval; dgamma = sum(g * xhat), dbeta = sum(g).
  ///           With options.mean and var: dx += options.mean / n + 2 * (x - mean) * options.var / n.
  /// Aliasing: dx may be dy, or x. No other overlap.
  /// Throws:   batchnorm::Error without a forward, or after another kind of it (forward_add, forward_weighted), on a
  ///           shape other than in that forward, or on gradients of mean or var after eval.
  /// Source:   Ioffe and Szegedy 2015, section 3.
  template <Device D, class X, class DY, class DX>
  void backward(const D& device, const X& x, const DY& dy, DX&& dx, const BackwardOptions& options = {}) {
    constexpr const char* function = "backward";
    require_inputs<X, DY>();
    require_output<X, DX>();
    const Index axis = check_backward(function, Forward::plain, x, options, dy);
    detail::check_input_gradient(function, "x", x, dy, dx);
    detail::resize_like(dx, x);
    const detail::Inputs x_dy(detail::view_of(x, axis), detail::view_of(dy, axis));
    const auto dx_view = detail::view_of(dx, axis);
    if (last_forward_.of_batch()) {
      detail::differentiate_batch(device, x_dy, dx_view, fill_input_gradient(activation_, options), sums_, workspace_);
    } else {
      differentiate_constants(device, x_dy, dx_view, activation_, options);
    }
    take_parameter_gradients(options.parameters);
  }

  /// The gradients of the last forward_add, which has kept where act' was 1: one bit for each value.
  ///
  /// Computes: dz = dy * act'(v), then as in backward with dz for g.
  /// Aliasing: dx and dz may each be x, or dy. No other overlap.
  template <Device D, class X, class DY, class DX, class DZ>
  void backward_add(const D& device, const X& x, const DY& dy, DX&& dx, DZ&& dz, const BackwardOptions& options = {}) {
    static_assert(keeps_slopes,
                  "batchnorm: of this activation forward_add keeps nothing; backward_add wants y after x.");
    require_sum_gradients<X, DY, DX, DZ>();
    const Index axis = prepare_backward_add(x, dy, dx, dz, options);
    const auto x_view = detail::view_of(x, axis);
    const auto dy_view = detail::view_of(dy, axis);
    if constexpr (detail::is_identity<Act>) {
      run_backward_add<Act>(device, detail::Inputs(x_view, dy_view), axis, dx, dz, options);
    } else {
      const detail::Inputs known(x_view, slopes_.view(x_view.shape), dy_view);
      run_backward_add<detail::KnownSlope<Act>>(device, known, axis, dx, dz, options);
    }
  }

  /// The same for an activation without two slopes: from the output y of forward_add, as it was rounded.
  ///
  /// Aliasing: dx and dz may each be x, y, or dy. No other overlap.
  template <Device D, class X, class Y, class DY, class DX, detail::NoBackwardOptions DZ>
  void backward_add(const D& device, const X& x, const Y& y, const DY& dy, DX&& dx, DZ&& dz,
                    const BackwardOptions& options = {}) {
    static_assert(!keeps_slopes,
                  "batchnorm: of this activation forward_add keeps what backward_add needs; leave out y.");
    constexpr const char* function = "backward_add";
    require_inputs<X, Y>();
    require_sum_gradients<X, DY, DX, DZ>();
    detail::check_same_dimensions(function, "y", y, x);
    detail::check_overlap(function, "dx", dx, "y", y);
    detail::check_overlap(function, "dz", dz, "y", y);
    const Index axis = prepare_backward_add(x, dy, dx, dz, options);
    const detail::Inputs known(detail::view_of(x, axis), detail::view_of(y, axis), detail::view_of(dy, axis));
    run_backward_add<Act>(device, known, axis, dx, dz, options);
  }

  /// The gradients of the last forward from its output y, where x is no longer there: y may have been written over it,
  /// which halves the memory that training keeps. Wants an activation that can be inverted, and a gamma without zeros.
  ///
  /// Computes: v = act^-1(y), xhat = (v - beta) / gamma, then as in backward. Where |gamma| is far smaller than |beta|,
  ///           y does not hold all digits of xhat.
  /// Aliasing: dx may be dy, or y. No other overlap.
  /// Throws:   as backward, and on a gamma or a slope of 0.
  /// Source:   Rota Bulo, Porzi and Kontschieder 2018.
  template <Device D, class Y, class DY, class DX>
  void backward_from_output(const D& device, const Y& y, const DY& dy, DX&& dx,
                            ParameterGradients parameters = ParameterGradients::add) {
    constexpr const char* function = "backward_from_output";
    static_assert(InvertibleActivation<Act>,
                  "batchnorm: this activation cannot be inverted; backward_from_output wants LeakyRelu or Identity.");
    detail::require_input<Y, DY>();
    detail::require_output<Y, DX>();
    const Index axis = check_backward(function, Forward::plain, y, {.parameters = parameters}, dy, "y");
    detail::check_input_gradient(function, "y", y, dy, dx);
    detail::check_invertible(function, gamma_, activation_);
    detail::resize_like(dx, y);
    const detail::Inputs y_dy(detail::view_of(y, axis), detail::view_of(dy, axis));
    const bool of_batch = last_forward_.of_batch();
    const detail::FillInputGradientOfOutput<Scalar, Act> fill_dx{last_moments(), of_batch ? &sums_ : nullptr,
                                                                 this->parameters(), options_.epsilon, activation_};
    if (of_batch || wants(parameters)) {
      detail::collect_gradients_of_output(device, y_dy, fill_dx, sums_, centers_, workspace_);
    }
    detail::input_gradient_of_output(device, y_dy, detail::view_of(dx, axis), fill_dx, workspace_);
    take_parameter_gradients(parameters);
  }

  /// The gradients of the last forward_weighted; the weights, in its order of memory, and `outputs` are those of that
  /// call (others are refused). With MaskedOutputs::normalize, x must be finite where the weight is 0.
  ///
  /// Computes: as backward with dx = gamma * inv_std * (g - w / W * (sum(g) + xhat * sum(g * xhat))); where masked
  ///           outputs were set to zero, they take no part in the sums, and dx is 0 there.
  /// Aliasing: dx may be dy, or x. No other overlap.
  template <Device D, class X, class W, class DY, class DX>
  void backward_weighted(const D& device, const X& x, const W& weights, const DY& dy, DX&& dx,
                         MaskedOutputs outputs = MaskedOutputs::zero, const BackwardOptions& options = {}) {
    constexpr const char* function = "backward_weighted";
    require_inputs<X, DY>();
    require_output<X, DX>();
    const Index axis = check_backward(function, Forward::weighted, x, options, dy);
    detail::check_input_gradient(function, "x", x, dy, dx);
    detail::take_weights(function, weights, x, axis, given_weights_);
    if (given_weights_ != weights_) detail::fail(function, "weights are not those of the last forward_weighted");
    if (outputs != masked_outputs_) {
      detail::fail(function, "outputs is not the MaskedOutputs of the last forward_weighted");
    }
    detail::check_apart(function, "dx", dx, "weights", weights);
    detail::resize_like(dx, x);
    const auto x_view = detail::view_of(x, axis);
    const auto dy_view = detail::view_of(dy, axis);
    const detail::Inputs in(x_view, dy_view, detail::weights_view(weights_, x_view.shape));
    const auto dx_view = detail::view_of(dx, axis);
    const auto fill_dx = fill_input_gradient(activation_, options);
    if (outputs == MaskedOutputs::zero) {
      detail::differentiate_masked(device, in, dx_view, fill_dx, sums_, workspace_);
    } else {
      const detail::Inputs x_dy(x_view, dy_view);
      detail::collect_gradients(device, x_dy, fill(last_moments()), sums_, workspace_);
      detail::weighted_input_gradient(device, in, dx_view, fill_dx, workspace_);
    }
    take_parameter_gradients(options.parameters);
  }

  /// The gradients of gamma and beta alone, of the last forward.
  ///
  /// Throws: batchnorm::Error without a forward, after another kind of it, or on a shape other than in that forward.
  template <Device D, class X, class DY>
  void backward_parameters(const D& device, const X& x, const DY& dy,
                           ParameterGradients parameters = ParameterGradients::add) {
    require_inputs<X, DY>();
    const Index axis = check_backward("backward_parameters", Forward::plain, x, {.parameters = parameters}, dy);
    if (!wants(parameters)) return;
    detail::collect_gradients(device, detail::Inputs(detail::view_of(x, axis), detail::view_of(dy, axis)),
                              fill(last_moments()), sums_, workspace_);
    take_parameter_gradients(parameters);
  }

  /// Normalizes x with the running statistics, in either mode (with none() as the average: with those of x).
  ///
  /// Aliasing: y may be x. No other overlap.
  /// Threads:  any number of threads may share the layer.
  /// Throws:   batchnorm::Error on a shape that does not fit, or a negative running variance.
  template <Device D, class X, class Y>
  void infer(const D& device, const X& x, Y&& y) const {
    require_output<X, Y>();
    run_infer("infer", device, y, x);
  }

  /// The same with y = act(gamma * (x - mean) * inv_std + beta + z).
  ///
  /// Aliasing: y may be x, or z. No other overlap.
  template <Device D, class X, class Z, class Y>
  void infer_add(const D& device, const X& x, const Z& z, Y&& y) const {
    require_output<X, Y>();
    run_infer("infer_add", device, y, x, z);
  }

  /// On the calling thread.
  template <class X, class Y>
  void forward(const X& x, Y&& y) {
    forward(Eigen::DefaultDevice{}, x, std::forward<Y>(y));
  }
  template <detail::NoDevice X, class Z, class Y>
  void forward_add(const X& x, const Z& z, Y&& y) {
    forward_add(Eigen::DefaultDevice{}, x, z, std::forward<Y>(y));
  }
  template <detail::NoDevice X, class DY, class DX>
  void backward(const X& x, const DY& dy, DX&& dx, const BackwardOptions& options = {}) {
    backward(Eigen::DefaultDevice{}, x, dy, std::forward<DX>(dx), options);
  }
  template <detail::NoDevice X, class DY, class DX, class DZ>
  void backward_add(const X& x, const DY& dy, DX&& dx, DZ&& dz, const BackwardOptions& options = {}) {
    backward_add(Eigen::DefaultDevice{}, x, dy, std::forward<DX>(dx), std::forward<DZ>(dz), options);
  }
  template <detail::NoDevice X, class Y, class DY, class DX, detail::NoBackwardOptions DZ>
  void backward_add(const X& x, const Y& y, const DY& dy, DX&& dx, DZ&& dz, const BackwardOptions& options = {}) {
    backward_add(Eigen::DefaultDevice{}, x, y, dy, std::forward<DX>(dx), std::forward<DZ>(dz), options);
  }
  template <detail::NoDevice Y, class DY, class DX>
  void backward_from_output(const Y& y, const DY& dy, DX&& dx,
                            ParameterGradients parameters = ParameterGradients::add) {
    backward_from_output(Eigen::DefaultDevice{}, y, dy, std::forward<DX>(dx), parameters);
  }
  template <detail::NoDevice X, class W, class Y>
  void forward_weighted(const X& x, const W& weights, Y&& y, MaskedOutputs outputs = MaskedOutputs::zero) {
    forward_weighted(Eigen::DefaultDevice{}, x, weights, std::forward<Y>(y), outputs);
  }
  template <detail::NoDevice X, class W, class DY, class DX>
  void backward_weighted(const X& x, const W& weights, const DY& dy, DX&& dx,
                         MaskedOutputs outputs = MaskedOutputs::zero, const BackwardOptions& options = {}) {
    backward_weighted(Eigen::DefaultDevice{}, x, weights, dy, std::forward<DX>(dx), outputs, options);
  }
  template <detail::NoDevice X, class DY>
  void backward_parameters(const X& x, const DY& dy, ParameterGradients parameters = ParameterGradients::add) {
    backward_parameters(Eigen::DefaultDevice{}, x, dy, parameters);
  }
  template <class X, class Y>
  void infer(const X& x, Y&& y) const {
    infer(Eigen::DefaultDevice{}, x, std::forward<Y>(y));
  }
  template <detail::NoDevice X, class Z, class Y>
  void infer_add(const X& x, const Z& z, Y&& y) const {
    infer_add(Eigen::DefaultDevice{}, x, z, std::forward<Y>(y));
  }

  /// The whole state, to be read by an optimizer or a file format and to be written by them. Vectors that
  /// options().affine leaves out are empty.
  Vector<Parameter>& gamma() { return gamma_; }
  Vector<Parameter>& beta() { return beta_; }
  Vector<Parameter>& gamma_gradient() { return gamma_gradient_; }
  Vector<Parameter>& beta_gradient() { return beta_gradient_; }
  Vector<Statistic>& running_mean() { return running_.mean; }
  Vector<Statistic>& running_var() { return running_.var; }
  const Vector<Parameter>& gamma() const { return gamma_; }
  const Vector<Parameter>& beta() const { return beta_; }
  const Vector<Parameter>& gamma_gradient() const { return gamma_gradient_; }
  const Vector<Parameter>& beta_gradient() const { return beta_gradient_; }
  const Vector<Statistic>& running_mean() const { return running_.mean; }
  const Vector<Statistic>& running_var() const { return running_.var; }

  Index batches_seen() const { return running_.batches_seen; }
  /// Throws: batchnorm::Error when negative.
  void set_batches_seen(Index batches) {
    if (batches < 0) {
      detail::fail("set_batches_seen", "batches is ", static_cast<double>(batches), "; it must not be negative");
    }
    running_.batches_seen = batches;
  }
  void reset_running_statistics() { running_.reset(); }
  void zero_gradients() {
    gamma_gradient_.setZero();
    beta_gradient_.setZero();
  }

  /// What the last forward normalized with.
  const BasicMoments<Statistic>& moments() const { return moments_; }
  const Options& options() const { return options_; }
  const Act& activation() const { return activation_; }
  Index channels() const { return sums_.channels(); }

  bool has_running_statistics() const { return options_.average.rule != RunningAverage::Rule::none; }
  bool training() const { return training_; }
  void train() { training_ = true; }
  void eval() { training_ = false; }

  /// Throws batchnorm::Error, in the name of `function`, where a vector has another length than it should: whoever got
  /// it from an accessor may have resized it.
  void check(const char* function) const {
    detail::check_length(function, "gamma", gamma_.size(), has_gamma() ? channels() : 0);
    detail::check_length(function, "beta", beta_.size(), has_beta() ? channels() : 0);
    detail::check_length(function, "gamma_gradient", gamma_gradient_.size(), gamma_.size());
    detail::check_length(function, "beta_gradient", beta_gradient_.size(), beta_.size());
    detail::check_length(function, "running_mean", running_.mean.size(), channels());
    detail::check_length(function, "running_var", running_.var.size(), channels());
  }

  /// Scratch memory that forward, backward and infer keep for their next call.
  Index workspace_bytes() const {
    const std::size_t own = static_cast<std::size_t>(weights_.size() + given_weights_.size()) * sizeof(Parameter) +
                            static_cast<std::size_t>(centers_.size()) * sizeof(Statistic);
    return workspace_.bytes() + pool_.bytes() + slopes_.bytes() + static_cast<Index>(own);
  }

 private:
  using Forward = detail::LastForward::Kind;

  static const Options& checked(Index channels, const Options& options) {
    detail::check_channel_count("BatchNorm", channels);
    detail::check_epsilon("BatchNorm", options.epsilon);
    return options;
  }

  bool has_gamma() const { return options_.affine == Affine::scale_and_shift || options_.affine == Affine::scale; }
  bool has_beta() const { return options_.affine == Affine::scale_and_shift || options_.affine == Affine::shift; }
  bool normalizes_batch() const { return training_ || !has_running_statistics(); }

  detail::Parameters<Scalar> parameters() const { return {detail::data_or_null(gamma_), detail::data_or_null(beta_)}; }
  detail::FillNormalize<Scalar, Act> fill(const detail::MomentsView<Statistic>& moments) const {
    return {moments, parameters(), options_.epsilon, activation_};
  }
  /// For the forward that runs: keeps inv_std for its backward.
  detail::FillNormalize<Scalar, Act> fill_and_keep() {
    return {detail::view_of(moments_), parameters(), options_.epsilon, activation_, inv_std_.data()};
  }
  /// What the last forward normalized with, and its inv_std.
  detail::MomentsView<Statistic> last_moments() const {
    return {moments_.count, moments_.mean.data(), moments_.m2.data(), inv_std_.data()};
  }

  template <class X, class Other>
  static consteval void require_inputs() {
    detail::require_scalar<X, Scalar>();
    detail::require_input<X, Other>();
  }
  template <class X, class Y>
  static consteval void require_output() {
    detail::require_scalar<X, Scalar>();
    detail::require_output<X, Y>();
  }

  template <class X, class DY, class DX, class DZ>
  static consteval void require_sum_gradients() {
    require_inputs<X, DY>();
    require_output<X, DX>();
    require_output<X, DZ>();
  }

  /// `z`: the residual, or none.
  template <Device D, class X, class Y, class... Z>
  void run_forward(const char* function, const D& device, Y& y, const X& x, const Z&... z) {
    const Index axis = check_forward(function, normalizes_batch(), y, x, z...);
    detail::resize_like(y, x);
    const detail::Inputs in(detail::view_of(x, axis), detail::view_of(z, axis)...);
    const auto y_view = detail::view_of(y, axis);
    if constexpr (sizeof...(Z) > 0 && detail::has_two_slopes<Act>) {
      const auto slopes = slopes_.reserve(in.shape());
      remember_forward(Forward::add, x);
      normalize_into(device, in, detail::TwoOutputs{y_view, slopes});
    } else {
      remember_forward(sizeof...(Z) == 0 ? Forward::plain : Forward::add, x);
      normalize_into(device, in, y_view);
    }
  }

  template <Device D, class In, class Out>
  void normalize_into(const D& device, const In& in, const Out& out) {
    if (normalizes_batch()) {
      detail::normalize_batch(device, in, out, moments_, parameters(), options_.epsilon, activation_, inv_std_.data(),
                              workspace_);
      if (training_) running_.update(moments_);
    } else {
      use_running_statistics();
      detail::normalize(device, in, out, fill_and_keep(), workspace_);
    }
  }

  template <class X>
  void remember_forward(Forward kind, const X& x) {
    last_forward_.remember(kind, x, normalizes_batch() ? Statistics::of_batch : Statistics::constant);
    if (x.size() == 0) inv_std_.setZero();  // no pass will keep it
  }

  void use_running_statistics() {
    moments_.count = Statistic(1);
    moments_.mean = running_.mean;
    moments_.m2 = running_.var;
  }

  template <Device D, class In, class Out>
  void normalize_weighted(const D& device, const In& x_weights, const detail::View<Out>& y) {
    const bool masked = masked_outputs_ == MaskedOutputs::zero;
    if (normalizes_batch() && masked) {
      detail::normalize_masked_batch(device, x_weights, y, moments_, parameters(), options_.epsilon, activation_,
                                     inv_std_.data(), workspace_);
    } else if (normalizes_batch()) {
      detail::collect_weighted_moments(device, x_weights, moments_, workspace_);
    } else {
      use_running_statistics();
      if (masked) detail::normalize_masked(device, x_weights, y, fill_and_keep(), workspace_);
    }
    if (!masked) {
      detail::normalize(device, detail::Inputs(x_weights.template get<0>()), y, fill_and_keep(), workspace_);
    }
    if (training_) running_.update(moments_);
  }

  template <Device D, class X, class Y, class... Z>
  void run_infer(const char* function, const D& device, Y& y, const X& x, const Z&... z) const {
    const Index axis = check_forward(function, !has_running_statistics(), y, x, z...);
    detail::resize_like(y, x);
    const detail::Inputs in(detail::view_of(x, axis), detail::view_of(z, axis)...);
    const typename detail::WorkspacePool<Scalar>::Loan memory(pool_);
    if (has_running_statistics()) {
      detail::normalize(device, in, detail::view_of(y, axis), fill(detail::view_of(running_)), memory->workspace);
    } else {
      detail::normalize_batch(device, in, detail::view_of(y, axis), memory->moments, parameters(), options_.epsilon,
                              activation_, nullptr, memory->workspace);
    }
  }

  template <class A>
  detail::FillInputGradient<Scalar, A> fill_input_gradient(const A& activation, const BackwardOptions& options) const {
    const auto data = [](const Vector<Statistic>* vector) { return vector == nullptr ? nullptr : vector->data(); };
    const auto* const sums = last_forward_.of_batch() ? &sums_ : nullptr;
    const detail::StatisticGradients<Statistic> of_statistics{data(options.mean), data(options.var)};
    return {last_moments(), sums, parameters(), options_.epsilon, activation, of_statistics};
  }

  /// Where the statistics are constants, dx does not wait for any sum.
  template <Device D, class In, class Out, class A>
  void differentiate_constants(const D& device, const In& x_dy, const detail::View<Out>& dx, const A& activation,
                               const BackwardOptions& options) {
    const auto moments = last_moments();
    if (wants(options.parameters)) {
      const detail::FillNormalize<Scalar, A> fill_normalize{moments, parameters(), options_.epsilon, activation};
      detail::collect_gradients(device, x_dy, fill_normalize, sums_, workspace_);
    }
    if constexpr (detail::is_identity<A>) {
      const detail::FillScale<Scalar> fill_scale{moments, parameters().gamma, options_.epsilon};
      detail::scale_gradient(device, x_dy.template get<1>(), dx, fill_scale, workspace_);
    } else {
      detail::input_gradient(device, x_dy, dx, fill_input_gradient(activation, options), workspace_);
    }
  }

  /// `known`: the inputs of SumGradientFormula<A>.
  template <class A, Device D, class In, class DX, class DZ>
  void run_backward_add(const D& device, const In& known, Index axis, DX& dx, DZ& dz, const BackwardOptions& options) {
    const detail::TwoOutputs dx_dz{detail::view_of(dx, axis), detail::view_of(dz, axis)};
    const detail::FillSumInputGradient<Scalar, A> fill_dx{fill_input_gradient(Identity(), options), {activation_}};
    if (last_forward_.of_batch()) {
      detail::differentiate_sum(device, known, dx_dz, fill_dx, sums_, workspace_);
    } else {
      if (wants(options.parameters)) {
        detail::collect_sum_gradients(device, known, fill_dx, sums_, workspace_);
      }
      detail::sum_input_gradient(device, known, dx_dz, fill_dx, workspace_);
    }
    take_parameter_gradients(options.parameters);
  }

  bool wants(ParameterGradients parameters) const {
    return parameters != ParameterGradients::skip && (has_gamma() || has_beta());
  }

  void take_parameter_gradients(ParameterGradients parameters) {
    if (!wants(parameters)) return;
    if (parameters == ParameterGradients::overwrite) zero_gradients();
    detail::add_gamma_gradient(last_moments(), sums_.dy_centered.data(), options_.epsilon, gamma_gradient_.data(),
                               gamma_gradient_.size());
    detail::add_beta_gradient(sums_.dy.data(), beta_gradient_.data(), beta_gradient_.size());
  }

  /// The checks of forward and infer; returns the axis counted from the front.
  template <class X, class Y, class... Z>
  Index check_forward(const char* function, bool of_batch, const Y& y, const X& x, const Z&... z) const {
    (require_inputs<X, Z>(), ...);
    const Index axis = detail::resolve_axis<X>(function, options_.axis);
    detail::check_channels(function, x, axis, channels());
    check(function);
    if (of_batch) {
      detail::check_single_value(function, detail::resolve_shape(x, axis), options_.single_value);
    } else {
      detail::check_not_negative(function, "running_var", running_.var);
    }
    (detail::check_same_dimensions(function, "z", z, x), ...);
    detail::check_output(function, "y", y, x);
    detail::check_overlap(function, "y", y, "x", x);
    (detail::check_overlap(function, "y", y, "z", z), ...);
    return axis;
  }

  /// The checks of the inputs of every backward; returns the axis counted from the front.
  template <class X, class DY>
  Index check_backward(const char* function, Forward forward, const X& x, const BackwardOptions& options, const DY& dy,
                       const char* x_name = "x") const {
    const Index axis = detail::resolve_axis<X>(function, options_.axis);
    last_forward_.check(function, forward, x_name, x);
    check(function);
    detail::check_same_dimensions(function, "dy", dy, x);
    detail::check_memory(function, x_name, x);
    detail::check_memory(function, "dy", dy);
    check_statistic_gradient(function, "options.mean", options.mean);
    check_statistic_gradient(function, "options.var", options.var);
    return axis;
  }

  /// The checks of backward_add; then its outputs have their size. Returns the axis counted from the front.
  template <class X, class DY, class DX, class DZ>
  Index prepare_backward_add(const X& x, const DY& dy, DX& dx, DZ& dz, const BackwardOptions& options) const {
    constexpr const char* function = "backward_add";
    const Index axis = check_backward(function, Forward::add, x, options, dy);
    detail::check_input_gradient(function, "x", x, dy, dx);
    detail::check_input_gradient(function, "x", x, dy, dz, "dz");
    detail::check_apart(function, "dx", dx, "dz", dz);
    detail::resize_like(dx, x);
    detail::resize_like(dz, x);
    return axis;
  }

  void check_statistic_gradient(const char* function, const char* name, const Vector<Statistic>* gradient) const {
    if (gradient == nullptr) return;
    detail::check_length(function, name, gradient->size(), channels());
    if (last_forward_.of_batch()) return;
    detail::fail(function, std::string(name) +
                               " is given; the last forward normalized with running statistics, which are constants");
  }

  Options options_;
  Act activation_;
  BasicRunningStatistics<Statistic> running_;
  Vector<Parameter> gamma_, beta_, gamma_gradient_, beta_gradient_;
  BasicMoments<Statistic> moments_;
  Vector<Statistic> inv_std_;  // of the last forward
  BasicGradientSums<Statistic> sums_;
  Workspace<Scalar> workspace_;
  mutable detail::WorkspacePool<Scalar> pool_;
  Vector<Parameter> weights_;                           // of every position in the last forward_weighted
  MaskedOutputs masked_outputs_ = MaskedOutputs::zero;  // in the last forward_weighted
  Vector<Parameter> given_weights_;                     // scratch: those of a call that has not been checked
  Vector<Statistic> centers_;                           // of every channel, in a backward from the output
  detail::Bits slopes_;                                 // whether act' was 1 at each value of the last forward_add
  detail::LastForward last_forward_;
  bool training_ = true;
};

}  // namespace batchnorm
