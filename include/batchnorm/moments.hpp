#pragma once

#include "batchnorm/detail/channels.hpp"
#include "batchnorm/detail/checks.hpp"
#include "batchnorm/error.hpp"
#include "batchnorm/options.hpp"
#include "batchnorm/scalar.hpp"

namespace batchnorm {

/// Count, mean and sum of squared deviations of the values of each channel. Two of them merge into that of all values,
/// whoever collected the parts: threads, ranks, micro-batches or the batches of a whole data set.
template <class Statistic>
struct BasicMoments {
  Statistic count = Statistic(0);  // values per channel
  Vector<Statistic> mean;
  Vector<Statistic> m2;

  BasicMoments() = default;
  explicit BasicMoments(Index channels)
      : mean(Vector<Statistic>::Zero(channels)), m2(Vector<Statistic>::Zero(channels)) {}

  Index channels() const { return mean.size(); }

  /// m2 / count; 0 without values.
  Vector<Statistic> var() const { return m2 / (count > Statistic(0) ? count : Statistic(1)); }
  /// m2 / (count - 1); 0 where the count is at most 1.
  Vector<Statistic> unbiased_var() const {
    if (!(count > Statistic(1))) return Vector<Statistic>::Zero(channels());
    return m2 / Statistic(count - Statistic(1));
  }

  /// Takes in the values of `other`. One without values is neutral.
  ///
  /// Computes: delta = other.mean - mean; mean += delta n_b / n; m2 += other.m2 + delta^2 n_a n_b / n.
  /// Throws:   batchnorm::Error when the numbers of channels differ, or a count is negative or not finite; then nothing
  ///           has been written.
  /// Source:   Chan, Golub and LeVeque 1979, equation 2.1.
  void merge(const BasicMoments& other) {
    detail::check_count("merge", "count", count);
    detail::check_count("merge", "other.count", other.count);
    if (other.count == Statistic(0)) return;
    const bool empty = count == Statistic(0) && channels() == 0;
    const Index expected = empty ? other.channels() : channels();
    detail::check_length("merge", "other.mean", other.mean.size(), expected);
    detail::check_length("merge", "other.m2", other.m2.size(), expected);
    if (empty) *this = BasicMoments(expected);
    detail::check_length("merge", "m2", m2.size(), expected);
    const Statistic total = count + other.count;
    const Statistic share = other.count / total;
    const Vector<Statistic> delta = other.mean - mean;
    mean += delta * share;
    m2 += other.m2 + delta.cwiseProduct(delta) * (count * share);
    count = total;
  }
};

using Moments = BasicMoments<double>;

namespace detail {

/// Moments that somebody else owns.
template <class Statistic>
struct MomentsView {
  Statistic count;
  const Statistic* mean;
  const Statistic* m2;
  const Statistic* known_inv_std = nullptr;  // of every channel, where it has been computed before

  /// 1 / sqrt(m2 / count + epsilon) of the channels from c on.
  template <class L>
  BATCHNORM_INLINE void inverse_std(Index c, double epsilon, typename L::V& inv_std) const {
    if (known_inv_std != nullptr) {
      L::load(inv_std, known_inv_std + c);
    } else {
      L::load(inv_std, m2 + c);
      invert_std<L>(inv_std, count > Statistic(0) ? count : Statistic(1), epsilon);
    }
  }
};

template <class Statistic>
MomentsView<Statistic> view_of(const BasicMoments<Statistic>& moments) {
  return {moments.count, moments.mean.data(), moments.m2.data()};
}

template <class Statistic>
void check_moments(const char* function, const BasicMoments<Statistic>& moments, const Shape& x) {
  check_length(function, "moments.mean", moments.mean.size(), x.channels);
  check_length(function, "moments.m2", moments.m2.size(), x.channels);
  check_not_negative(function, "moments.m2", moments.m2);
  check_count(function, "moments.count", moments.count);
  if (x.size() != 0 && moments.count == Statistic(0)) fail(function, "moments hold no values");
}

/// Derivatives that go through mean and variance want those of x, not of more values.
template <class Statistic>
void check_moments_of_x(const char* function, const BasicMoments<Statistic>& moments, const Shape& x,
                        const char* otherwise = "") {
  check_moments(function, moments, x);
  const double count = static_cast<double>(x.count());
  if (x.size() == 0 || moments.count == Statistic(count)) return;
  fail(function, "moments are not those of the ", count, (std::string(" values per channel of x") + otherwise).c_str());
}

}  // namespace detail

/// Mean and variance that follow the batches of training and normalize in inference.
template <class Statistic>
struct BasicRunningStatistics {
  Vector<Statistic> mean;
  Vector<Statistic> var;
  Index batches_seen = 0;
  RunningAverage average;
  Variance variance;

  /// Starts at mean 0, variance 1. Throws batchnorm::Error when channels < 1, or the rule has a weight outside [0, 1].
  explicit BasicRunningStatistics(Index channels, RunningAverage average_rule = new_weight(0.1),
                                  Variance running_variance = Variance::unbiased)
      : average(average_rule), variance(running_variance) {
    detail::check_channel_count("RunningStatistics", channels);
    detail::check_average("RunningStatistics", average);
    mean.resize(channels);
    var.resize(channels);
    reset();
  }

  /// Back to mean 0, variance 1 and no batches.
  void reset() {
    mean.setZero();
    var.setOnes();
    batches_seen = 0;
  }

  /// Follows one more batch: r <- (1 - w) r + w b for mean and variance, w = average.weight(batches_seen).
  /// Moments without values change nothing; none() counts batches and changes no more. The one place where running
  /// statistics change.
  ///
  /// Throws: batchnorm::Error when the number of channels differs, or the count is negative or not finite; then nothing
  ///         has been written.
  void update(const BasicMoments<Statistic>& moments) {
    detail::check_length("update", "moments.mean", moments.mean.size(), mean.size());
    detail::check_length("update", "moments.m2", moments.m2.size(), mean.size());
    detail::check_length("update", "var", var.size(), mean.size());
    detail::check_count("update", "moments.count", moments.count);
    if (moments.count == Statistic(0)) return;
    ++batches_seen;
    if (average.rule == RunningAverage::Rule::none) return;
    const Statistic w = Statistic(average.weight(batches_seen));
    const Statistic divisor = variance == Variance::biased ? moments.count : moments.count - Statistic(1);
    const Statistic var_weight = divisor > Statistic(0) ? w / divisor : Statistic(0);
    mean = mean * (Statistic(1) - w) + moments.mean * w;
    var = var * (Statistic(1) - w) + moments.m2 * var_weight;
  }

  /// The same numbers as moments, for `normalize`: a count of 1 makes m2 the variance.
  BasicMoments<Statistic> moments() const {
    BasicMoments<Statistic> result;
    result.count = Statistic(1);
    result.mean = mean;
    result.m2 = var;
    return result;
  }
};

using RunningStatistics = BasicRunningStatistics<double>;

namespace detail {

template <class Statistic>
MomentsView<Statistic> view_of(const BasicRunningStatistics<Statistic>& running) {
  return {Statistic(1), running.mean.data(), running.var.data()};
}

}  // namespace detail

}  // namespace batchnorm
