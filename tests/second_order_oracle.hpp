/// Derivatives of forward and backward in a direction, by the product rule on their definitions in long double. (The
/// gradients of double backward are these derivatives: second derivatives are symmetric.)
#pragma once

#include "oracle.hpp"

namespace oracle {

/// How x, gamma and beta move.
struct Direction {
  Values x, gamma, beta;
};

/// How y, dx and dgamma move then, with dy fixed.
struct Tangents {
  Result y, dx, dgamma;
};

/// Sums over each channel.
class ChannelSums {
 public:
  explicit ChannelSums(const Layout& layout)
      : channel_(layout.channel_of_each()), channels_(layout.channels()), count_(static_cast<Real>(layout.count())) {}

  Values each(const Values& of_channel) const { return of_channel(channel_); }
  Values sum(const Values& terms) const {
    Values result = Values::Zero(channels_);
    for (Index i = 0; i < terms.size(); ++i) result[channel_[i]] += terms[i];
    return result;
  }
  Values mean(const Values& terms) const { return sum(terms) / count_; }
  Values root_mean_square(const Values& terms) const { return mean(terms.square()).sqrt(); }

  /// Unit of a mean of values times deviations: itself, what terms of random sign add up to, or where the values have a
  /// mean, what the deviations do, which may all be rounded the same way.
  Values unit_of_mean(const Values& values, const Values& deviations) const {
    const Values terms = values * deviations;
    const Values random = (sum(terms.square()).sqrt() / count_).max(mean(terms).abs());
    return random.max(mean(values).abs() * root_mean_square(deviations));
  }

 private:
  Channels channel_;
  Index channels_;
  Real count_;
};

/// Units: the largest terms of the formulas at each element, gathered by dy, v and xhat. The root mean squares of dy
/// and v stand beside their values, and sums count as much as their rounding does.
inline Tangents tangents(const Layout& layout, const Values& x, const Values& dy, const Statistics& s,
                         const Values& gamma, const Direction& v, Real epsilon, Statistic kind) {
  const bool moves = kind == Statistic::of_the_batch;
  const ChannelSums sums(layout);
  const auto each = [&](const Values& of_channel) { return sums.each(of_channel); };
  const auto mean_if_moves = [&](const Values& terms) {
    return moves ? sums.mean(terms) : Values(Values::Zero(layout.channels()));
  };
  const Values inv_std = (s.var + epsilon).sqrt().inverse();
  const Values centered = x - each(s.mean), xhat = centered * each(inv_std);

  const Values v_centered = v.x - each(mean_if_moves(v.x));
  const Values inv_std_moves = -inv_std.cube() * mean_if_moves(centered * v_centered);
  const Values xhat_moves = v_centered * each(inv_std) + centered * each(inv_std_moves);

  Tangents t;
  t.y.value = each(gamma) * xhat_moves + each(v.gamma) * xhat + each(v.beta);
  t.dgamma.value = sums.sum(dy * xhat_moves);
  const Values dy_centered = dy - each(mean_if_moves(dy)), through_var = mean_if_moves(dy * xhat);
  const Values inner = dy_centered - xhat * each(through_var);
  const Values inner_moves = -xhat_moves * each(through_var) - xhat * each(mean_if_moves(dy * xhat_moves));
  t.dx.value = each(v.gamma * inv_std + gamma * inv_std_moves) * inner + each(gamma * inv_std) * inner_moves;

  const Values scale = (gamma * inv_std).abs(), v_gamma = v.gamma.abs();
  const Values parameter_terms = (each(v_gamma) * xhat).abs().max(each(v.beta).abs());
  if (moves) {
    const Values a = sums.unit_of_mean(dy, xhat), b = sums.unit_of_mean(v.x, xhat);
    const Values k = sums.unit_of_mean(v.x, dy_centered);
    const Values large_dy = dy.abs().max(each(sums.root_mean_square(dy)));
    const Values large_v = v.x.abs().max(each(sums.root_mean_square(v.x)));
    const Values by_dy = each(v_gamma + scale * b) * large_dy, by_v = each(scale * a) * large_v;
    const Values by_xhat = each(scale * k.max(3 * a * b) + v_gamma * a) * xhat.abs();
    t.y.unit = (each(scale) * large_v.max(xhat.abs() * each(b))).max(parameter_terms);
    t.dx.unit = each(inv_std) * by_dy.max(by_v).max(by_xhat);
    t.dgamma.unit = inv_std * static_cast<Real>(layout.count()) * k.max(a * b);
  } else {
    t.y.unit = (each(scale) * v.x.abs()).max(parameter_terms);
    t.dx.unit = t.dx.value.abs();
    t.dgamma.unit = inv_std * sums.sum((v.x * dy).square()).sqrt().max(sums.sum(v.x * dy).abs());
  }
  return t;
}

}  // namespace oracle
