#pragma once

#include <utility>

#include "batchnorm/detail/layer_backward.hpp"
#include "batchnorm/detail/layer_forward.hpp"

namespace batchnorm {

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
      : layer_(channels, options, activation) {}

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
    detail::run_forward(layer_, "forward", device, y, x);
  }

  /// The same with y = act(gamma * (x - mean) * inv_std + beta + z).
  ///
  /// Aliasing: y may be x, or z. No other overlap.
  template <Device D, class X, class Z, class Y>
  void forward_add(const D& device, const X& x, const Z& z, Y&& y) {
    require_inputs<X, Z>();
    require_output<X, Y>();
    detail::run_forward(layer_, "forward_add", device, y, x, z);
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
    require_output<X, Y>();
    detail::run_forward_weighted(layer_, device, x, weights, y, outputs);
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
    require_inputs<X, DY>();
    require_output<X, DX>();
    detail::run_backward(layer_, device, x, dy, dx, options);
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
    detail::run_backward_add(layer_, device, x, dy, dx, dz, options);
  }

  /// The same for an activation without two slopes: from the output y of forward_add, as it was rounded.
  ///
  /// Aliasing: dx and dz may each be x, y, or dy. No other overlap.
  template <Device D, class X, class Y, class DY, class DX, detail::NoBackwardOptions DZ>
  void backward_add(const D& device, const X& x, const Y& y, const DY& dy, DX&& dx, DZ&& dz,
                    const BackwardOptions& options = {}) {
    static_assert(!keeps_slopes,
                  "batchnorm: of this activation forward_add keeps what backward_add needs; leave out y.");
    require_inputs<X, Y>();
    require_sum_gradients<X, DY, DX, DZ>();
    detail::run_backward_add(layer_, device, x, dy, dx, dz, options, y);
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
    static_assert(InvertibleActivation<Act>,
                  "batchnorm: this activation cannot be inverted; backward_from_output wants LeakyRelu or Identity.");
    detail::require_input<Y, DY>();
    detail::require_output<Y, DX>();
    detail::run_backward_from_output(layer_, device, y, dy, dx, parameters);
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
    require_inputs<X, DY>();
    require_output<X, DX>();
    detail::run_backward_weighted(layer_, device, x, weights, dy, dx, outputs, options);
  }

  /// The gradients of gamma and beta alone, of the last forward.
  ///
  /// Throws: batchnorm::Error without a forward, after another kind of it, or on a shape other than in that forward.
  template <Device D, class X, class DY>
  void backward_parameters(const D& device, const X& x, const DY& dy,
                           ParameterGradients parameters = ParameterGradients::add) {
    require_inputs<X, DY>();
    detail::run_backward_parameters(layer_, device, x, dy, parameters);
  }

  /// Normalizes x with the running statistics, in either mode (with none() as the average: with those of x).
  ///
  /// Aliasing: y may be x. No other overlap.
  /// Threads:  any number of threads may share the layer.
  /// Throws:   batchnorm::Error on a shape that does not fit, or a negative running variance.
  template <Device D, class X, class Y>
  void infer(const D& device, const X& x, Y&& y) const {
    require_output<X, Y>();
    detail::run_infer(layer_, "infer", device, y, x);
  }

  /// The same with y = act(gamma * (x - mean) * inv_std + beta + z).
  ///
  /// Aliasing: y may be x, or z. No other overlap.
  template <Device D, class X, class Z, class Y>
  void infer_add(const D& device, const X& x, const Z& z, Y&& y) const {
    require_inputs<X, Z>();
    require_output<X, Y>();
    detail::run_infer(layer_, "infer_add", device, y, x, z);
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
  Vector<Parameter>& gamma() { return layer_.gamma; }
  Vector<Parameter>& beta() { return layer_.beta; }
  Vector<Parameter>& gamma_gradient() { return layer_.gamma_gradient; }
  Vector<Parameter>& beta_gradient() { return layer_.beta_gradient; }
  Vector<Statistic>& running_mean() { return layer_.running.mean; }
  Vector<Statistic>& running_var() { return layer_.running.var; }
  const Vector<Parameter>& gamma() const { return layer_.gamma; }
  const Vector<Parameter>& beta() const { return layer_.beta; }
  const Vector<Parameter>& gamma_gradient() const { return layer_.gamma_gradient; }
  const Vector<Parameter>& beta_gradient() const { return layer_.beta_gradient; }
  const Vector<Statistic>& running_mean() const { return layer_.running.mean; }
  const Vector<Statistic>& running_var() const { return layer_.running.var; }

  Index batches_seen() const { return layer_.running.batches_seen; }
  /// Throws: batchnorm::Error when negative.
  void set_batches_seen(Index batches) {
    if (batches < 0) {
      detail::fail("set_batches_seen", "batches is ", static_cast<double>(batches), "; it must not be negative");
    }
    layer_.running.batches_seen = batches;
  }
  void reset_running_statistics() { layer_.running.reset(); }
  void zero_gradients() { layer_.zero_gradients(); }

  /// What the last forward normalized with.
  const BasicMoments<Statistic>& moments() const { return layer_.moments; }
  const Options& options() const { return layer_.options; }
  const Act& activation() const { return layer_.activation; }
  Index channels() const { return layer_.channels(); }

  bool has_running_statistics() const { return layer_.has_running_statistics(); }
  bool training() const { return layer_.training; }
  void train() { layer_.training = true; }
  void eval() { layer_.training = false; }

  /// Throws batchnorm::Error, in the name of `function`, where a vector has another length than it should: whoever got
  /// it from an accessor may have resized it.
  void check(const char* function) const { layer_.check_lengths(function); }

  /// Scratch memory that forward, backward and infer keep for their next call.
  Index workspace_bytes() const { return layer_.workspace_bytes(); }

 private:
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

  detail::Layer<Scalar, Act> layer_;
};

}  // namespace batchnorm
