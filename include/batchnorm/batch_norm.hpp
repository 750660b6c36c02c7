#pragma once

#include <utility>
#include <vector>

#include "batchnorm/backward.hpp"
#include "batchnorm/detail/workspace_pool.hpp"
#include "batchnorm/forward.hpp"

namespace batchnorm {

/// A batch normalization layer: gamma, beta, their gradients and the running statistics, over the four phases.
///
/// Shapes:  x, y, dy, dx of rank 2 or more and equal, `channels` entries on options.axis. An output is resized where it
///          owns its memory, and must fit where it does not.
/// Threads: calls on one layer must not overlap, except those of `infer`. The same bits for any number of threads.
/// Throws:  batchnorm::Error, and then the layer and the outputs are what they were before the call.
/// Memory:  after the first call with a shape nothing is allocated (but by Eigen's thread pool).
template <class Scalar>
class BatchNorm {
 public:
  using Parameter = ParameterOf<Scalar>;
  using Statistic = StatisticOf<Scalar>;

  /// Throws: batchnorm::Error when channels < 1, or epsilon is negative or not finite.
  explicit BatchNorm(Index channels, const Options& options = {})
      : options_(checked(channels, options)),
        running_(channels, options.average, options.running_variance),
        gamma_(Vector<Parameter>::Ones(has_gamma() ? channels : 0)),
        beta_(Vector<Parameter>::Zero(has_beta() ? channels : 0)),
        gamma_gradient_(Vector<Parameter>::Zero(gamma_.size())),
        beta_gradient_(Vector<Parameter>::Zero(beta_.size())),
        moments_(channels),
        sums_(channels) {}

  /// In training, normalizes x with its own statistics, and the running ones follow; in eval, with the running ones.
  ///
  /// Computes: y = gamma * (x - mean) * inv_std + beta, inv_std = 1 / sqrt(var + epsilon), var = m2 / count.
  /// Aliasing: y may be x (backward then wants x as it was). No other overlap.
  /// Throws:   batchnorm::Error on a shape that does not fit, a single value per channel in training, or a negative
  ///           running variance in eval.
  /// Source:   Ioffe and Szegedy 2015, algorithm 1.
  template <Device D, class X, class Y>
  void forward(const D& device, const X& x, Y&& y) {
    detail::require_tensor<X>();
    detail::require_output<X, Y>();
    detail::require_scalar<X, Scalar>();
    const Index axis = check_forward("forward", x, y, normalizes_batch());
    detail::resize_like(y, x);
    const auto dims = detail::dimensions_of(x);
    forward_dimensions_.assign(dims.begin(), dims.end());
    differentiates_ = normalizes_batch() ? Differentiates::batch : Differentiates::constants;
    const detail::View<const Scalar> x_view = detail::view_of(x, axis);
    if (normalizes_batch()) {
      detail::normalize_batch<D, Scalar>(device, x_view, detail::view_of(y, axis), moments_, parameters(),
                                         options_.epsilon, workspace_);
      if (training_) running_.update(moments_);
    } else {
      moments_.count = Statistic(1);
      moments_.mean = running_.mean;
      moments_.m2 = running_.var;
      detail::normalize<D, Scalar>(device, x_view, detail::view_of(y, axis), fill(detail::view_of(moments_)),
                                   workspace_);
    }
  }

  /// The gradients of the last forward. x and dy are those of that call; dx is overwritten, the gradients of gamma and
  /// beta are added to gamma_gradient() and beta_gradient().
  ///
  /// Computes: dx = gamma * inv_std * (dy - sum(dy) / n - xhat * sum(dy * xhat) / n) after training,
  ///           dx = gamma * inv_std * dy after eval; dgamma = sum(dy * xhat), dbeta = sum(dy).
  /// Aliasing: dx may be dy, or x. No other overlap.
  /// Throws:   batchnorm::Error without a forward, or on a shape other than in that forward.
  /// Source:   Ioffe and Szegedy 2015, section 3.
  template <Device D, class X, class DY, class DX>
  void backward(const D& device, const X& x, const DY& dy, DX&& dx) {
    detail::require_tensor<X>();
    detail::require_same_layout<X, DY>();
    detail::require_output<X, DX>();
    detail::require_scalar<X, Scalar>();
    const Index axis = check_backward(x, dy, dx);
    detail::resize_like(dx, x);
    const detail::PairOf<Scalar> x_dy{detail::view_of(x, axis), detail::view_of(dy, axis)};
    const auto dx_view = detail::view_of(dx, axis);
    const auto moments = detail::view_of(moments_);
    if (differentiates_ == Differentiates::batch) {
      const detail::FillInputGradient<Scalar> fill{moments, sums_, parameters().gamma, options_.epsilon};
      detail::differentiate_batch<D, Scalar>(device, x_dy, dx_view, fill, sums_, workspace_);
    } else {
      detail::collect_gradients<D, Scalar>(device, x_dy, moments, sums_, workspace_);
      const detail::FillScale<Scalar> fill{moments, parameters().gamma, options_.epsilon};
      detail::scale_gradient<D, Scalar>(device, x_dy[1], dx_view, fill, workspace_);
    }
    detail::add_gamma_gradient(moments, sums_.dy_centered.data(), options_.epsilon, gamma_gradient_.data(),
                               gamma_gradient_.size());
    for (Index c = 0; c < beta_gradient_.size(); ++c) beta_gradient_[c] += static_cast<Parameter>(sums_.dy[c]);
  }

  /// Normalizes x with the running statistics, in either mode (with none() as the average: with those of x).
  ///
  /// Aliasing: y may be x. No other overlap.
  /// Threads:  any number of threads may share the layer.
  /// Throws:   batchnorm::Error on a shape that does not fit, or a negative running variance.
  template <Device D, class X, class Y>
  void infer(const D& device, const X& x, Y&& y) const {
    detail::require_tensor<X>();
    detail::require_output<X, Y>();
    detail::require_scalar<X, Scalar>();
    const Index axis = check_forward("infer", x, y, !has_running_statistics());
    detail::resize_like(y, x);
    const detail::View<const Scalar> x_view = detail::view_of(x, axis);
    const typename detail::WorkspacePool<Scalar>::Loan memory(pool_);
    if (has_running_statistics()) {
      detail::normalize<D, Scalar>(device, x_view, detail::view_of(y, axis), fill(detail::view_of(running_)),
                                   memory->workspace);
    } else {
      detail::normalize_batch<D, Scalar>(device, x_view, detail::view_of(y, axis), memory->moments, parameters(),
                                         options_.epsilon, memory->workspace);
    }
  }

  /// On the calling thread.
  template <class X, class Y>
  void forward(const X& x, Y&& y) {
    forward(Eigen::DefaultDevice{}, x, std::forward<Y>(y));
  }
  template <class X, class DY, class DX>
  void backward(const X& x, const DY& dy, DX&& dx) {
    backward(Eigen::DefaultDevice{}, x, dy, std::forward<DX>(dx));
  }
  template <class X, class Y>
  void infer(const X& x, Y&& y) const {
    infer(Eigen::DefaultDevice{}, x, std::forward<Y>(y));
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

  /// Memory that forward, backward and infer keep for their next call.
  Index workspace_bytes() const { return workspace_.bytes() + pool_.bytes(); }

 private:
  enum class Differentiates { nothing, batch, constants };

  static const Options& checked(Index channels, const Options& options) {
    detail::check_channel_count("BatchNorm", channels);
    detail::check_epsilon("BatchNorm", options.epsilon);
    return options;
  }

  bool has_gamma() const { return options_.affine == Affine::scale_and_shift || options_.affine == Affine::scale; }
  bool has_beta() const { return options_.affine == Affine::scale_and_shift || options_.affine == Affine::shift; }
  bool normalizes_batch() const { return training_ || !has_running_statistics(); }

  detail::Parameters<Scalar> parameters() const { return {detail::data_or_null(gamma_), detail::data_or_null(beta_)}; }
  detail::FillNormalize<Scalar> fill(const detail::MomentsView<Statistic>& moments) const {
    return {moments, parameters(), options_.epsilon};
  }

  /// The checks of forward and infer; returns the axis counted from the front.
  template <class X, class Y>
  Index check_forward(const char* function, const X& x, const Y& y, bool of_batch) const {
    const Index axis = detail::resolve_axis<X>(function, options_.axis);
    detail::check_channels(function, x, axis, channels());
    check(function);
    if (of_batch) {
      detail::check_single_value(function, detail::resolve_shape(x, axis), options_.single_value);
    } else {
      detail::check_not_negative(function, "running_var", running_.var);
    }
    detail::check_output(function, "y", y, x);
    detail::check_overlap(function, "y", y, "x", x);
    return axis;
  }

  template <class X, class DY, class DX>
  Index check_backward(const X& x, const DY& dy, const DX& dx) const {
    constexpr const char* function = "backward";
    const Index axis = detail::resolve_axis<X>(function, options_.axis);
    if (differentiates_ == Differentiates::nothing) detail::fail(function, "there has been no forward");
    const auto dims = detail::dimensions_of(x);
    if (!std::equal(dims.begin(), dims.end(), forward_dimensions_.begin(), forward_dimensions_.end())) {
      detail::fail_dimensions(function, "x", dims, "in the last forward it was", forward_dimensions_);
    }
    check(function);
    detail::check_same_dimensions(function, "dy", dy, x);
    detail::check_output(function, "dx", dx, x);
    detail::check_overlap(function, "dx", dx, "x", x);
    detail::check_overlap(function, "dx", dx, "dy", dy);
    return axis;
  }

  Options options_;
  BasicRunningStatistics<Statistic> running_;
  Vector<Parameter> gamma_, beta_, gamma_gradient_, beta_gradient_;
  BasicMoments<Statistic> moments_;
  BasicGradientSums<Statistic> sums_;
  Workspace<Scalar> workspace_;
  mutable detail::WorkspacePool<Scalar> pool_;
  std::vector<Index> forward_dimensions_;
  Differentiates differentiates_ = Differentiates::nothing;
  bool training_ = true;
};

}  // namespace batchnorm
