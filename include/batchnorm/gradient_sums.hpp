#pragma once

#include "batchnorm/moments.hpp"

namespace batchnorm {

namespace detail {

/// Adds the gradient of gamma, sum of dy * (x - mean) * inv_std, to that of every channel.
template <class Statistic, class Parameter>
void add_gamma_gradient(const MomentsView<Statistic>& moments, const Statistic* dy_centered, double epsilon,
                        Parameter* to, Index channels) {
  for_channels<Statistic>(0, channels, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
    typename L::V sum, inv_std, gradient;
    L::load(sum, dy_centered + c);
    moments.template inverse_std<L>(c, epsilon, inv_std);
    load_channels<L>(gradient, to + c);
    store_channels<L>(to + c, gradient + sum * inv_std);
  });
}

/// Adds the gradient of beta, sum of dy, to that of every channel.
template <class Statistic, class Parameter>
void add_beta_gradient(const Statistic* dy, Parameter* to, Index channels) {
  for_channels<Statistic>(0, channels, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
    typename L::V sum, gradient;
    L::load(sum, dy + c);
    load_channels<L>(gradient, to + c);
    store_channels<L>(to + c, gradient + sum);
  });
}

}  // namespace detail

/// What the gradients need of a whole batch, per channel. The sums of two parts add up to those of the whole.
template <class Statistic>
struct BasicGradientSums {
  Vector<Statistic> dy;           // sum of dy: the gradient of beta
  Vector<Statistic> dy_centered;  // sum of dy * (x - mean)

  BasicGradientSums() = default;
  explicit BasicGradientSums(Index channels)
      : dy(Vector<Statistic>::Zero(channels)), dy_centered(Vector<Statistic>::Zero(channels)) {}

  Index channels() const { return dy.size(); }

  /// Throws: batchnorm::Error when the numbers of channels differ; then nothing has been written.
  void merge(const BasicGradientSums& other) {
    const bool empty = channels() == 0;
    const Index expected = empty ? other.channels() : channels();
    detail::check_length("merge", "other.dy", other.dy.size(), expected);
    detail::check_length("merge", "other.dy_centered", other.dy_centered.size(), expected);
    if (empty) *this = BasicGradientSums(expected);
    detail::check_length("merge", "dy_centered", dy_centered.size(), expected);
    dy += other.dy;
    dy_centered += other.dy_centered;
  }

  /// sum of dy * (x - mean) * inv_std.
  ///
  /// Throws: batchnorm::Error when the numbers of channels differ, or epsilon or moments.count is negative or not
  ///         finite.
  Vector<Statistic> gamma_gradient(const BasicMoments<Statistic>& moments, double epsilon) const {
    detail::check_epsilon("gamma_gradient", epsilon);
    detail::check_length("gamma_gradient", "dy_centered", dy_centered.size(), channels());
    detail::check_length("gamma_gradient", "moments.m2", moments.m2.size(), channels());
    detail::check_count("gamma_gradient", "moments.count", moments.count);
    Vector<Statistic> gradient = Vector<Statistic>::Zero(channels());
    detail::add_gamma_gradient(detail::view_of(moments), dy_centered.data(), epsilon, gradient.data(), channels());
    return gradient;
  }
};

using GradientSums = BasicGradientSums<double>;

}  // namespace batchnorm
