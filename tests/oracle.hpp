/// Batch normalization by its definitions, element by element, in long double: what the library is measured against.
/// Finds elements through tensor coordinates and shares no code with the library.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace oracle {

using Eigen::Index;
using Real = long double;
using Values = Eigen::Array<Real, Eigen::Dynamic, 1>;
using Channels = Eigen::Array<Index, Eigen::Dynamic, 1>;

enum class Order { row_major, col_major };

/// Sizes, storage order and channel axis of a tensor.
struct Layout {
  std::vector<Index> dims;
  Order order = Order::row_major;
  int axis = 1;

  int rank() const { return static_cast<int>(dims.size()); }
  Index dim(int d) const { return dims[static_cast<std::size_t>(d)]; }
  int channel_axis() const { return axis < 0 ? axis + rank() : axis; }
  Index channels() const { return dim(channel_axis()); }

  Index size() const {
    Index product = 1;
    for (Index d : dims) product *= d;
    return product;
  }

  /// Number of values in each channel.
  Index count() const { return size() / channels(); }

  /// Coordinate along the channel axis of the element at `position` in memory.
  Index channel_of(Index position) const {
    for (int k = 0; k < rank(); ++k) {
      const int fastest = order == Order::row_major ? rank() - 1 - k : k;
      if (fastest == channel_axis()) return position % dim(fastest);
      position /= dim(fastest);
    }
    return -1;
  }

  /// The channel of every element, in memory order.
  Channels channel_of_each() const {
    Channels channel(size());
    for (Index i = 0; i < size(); ++i) channel[i] = channel_of(i);
    return channel;
  }
};

struct Statistics {
  Values mean, var;
};

inline Statistics statistics(const Layout& layout, const Values& x) {
  const Channels channel = layout.channel_of_each();
  const Real count = static_cast<Real>(layout.count());
  Statistics s{Values::Zero(layout.channels()), Values::Zero(layout.channels())};
  for (Index i = 0; i < x.size(); ++i) s.mean[channel[i]] += x[i];
  s.mean /= count;
  for (Index i = 0; i < x.size(); ++i) s.var[channel[i]] += std::pow(x[i] - s.mean[channel[i]], 2);
  s.var /= count;
  return s;
}

/// Results, and beside each the largest term of its formula: the unit in which an error is measured.
struct Result {
  Values value, unit;
};

/// y = gamma * (x - mean) * inv_std + beta.
/// Unit: the larger of the two terms at that element; at least gamma * std * inv_std, the first one's typical size.
inline Result forward(const Layout& layout, const Values& x, const Statistics& s, const Values& gamma,
                      const Values& beta, Real epsilon) {
  const Channels channel = layout.channel_of_each();
  Result y{Values(x.size()), Values(x.size())};
  for (Index i = 0; i < x.size(); ++i) {
    const Index c = channel[i];
    const Real scale = gamma[c] / std::sqrt(s.var[c] + epsilon);
    const Real normalized = scale * (x[i] - s.mean[c]);
    y.value[i] = normalized + beta[c];
    y.unit[i] = std::max({std::abs(normalized), std::abs(scale) * std::sqrt(s.var[c]), std::abs(beta[c])});
  }
  return y;
}

struct Gradients {
  Result dx, dgamma, dbeta;
};

/// Where the statistics come from: from x itself, so that they move with it, or from elsewhere.
enum class Statistic { of_the_batch, constant };

/// dbeta = sum dy, dgamma = sum dy * xhat, and with statistics of the batch
/// dx = gamma * inv_std * (dy - dbeta / count - xhat * dgamma / count), with constant ones dx = gamma * inv_std * dy.
/// Units: of dx, the largest of its terms at that element, with the root mean square of dy among them, for the sums
/// carry the rounding of every dy; of dgamma and dbeta, the root of the sum of the squared terms (what terms of random
/// sign add up to; the sum of their absolute values would forgive errors sqrt(count) larger), or the sum if larger.
inline Gradients backward(const Layout& layout, const Values& x, const Values& dy, const Statistics& s,
                          const Values& gamma, Real epsilon, Statistic kind) {
  const Channels channel = layout.channel_of_each();
  const Index channels = layout.channels();
  const Real count = static_cast<Real>(layout.count());
  const Values inv_std = (s.var + epsilon).sqrt().inverse();
  Values dbeta = Values::Zero(channels), dgamma = dbeta, dbeta_squares = dbeta, dgamma_squares = dbeta;
  Values xhat(x.size());
  for (Index i = 0; i < x.size(); ++i) {
    const Index c = channel[i];
    xhat[i] = (x[i] - s.mean[c]) * inv_std[c];
    dbeta[c] += dy[i];
    dgamma[c] += dy[i] * xhat[i];
    dbeta_squares[c] += dy[i] * dy[i];
    dgamma_squares[c] += std::pow(dy[i] * xhat[i], 2);
  }
  Result dx{Values(x.size()), Values(x.size())};
  for (Index i = 0; i < x.size(); ++i) {
    const Index c = channel[i];
    const Real scale = gamma[c] * inv_std[c];
    dx.value[i] = scale * dy[i];
    dx.unit[i] = std::abs(scale * dy[i]);
    if (kind == Statistic::constant) continue;
    const Real through_mean = dbeta[c] / count, through_var = xhat[i] * dgamma[c] / count;
    dx.value[i] = scale * (dy[i] - through_mean - through_var);
    dx.unit[i] = std::abs(scale) * std::max({std::abs(dy[i]), std::sqrt(dbeta_squares[c] / count),
                                             std::abs(through_mean), std::abs(through_var)});
  }
  return {dx, {dgamma, dgamma.abs().max(dgamma_squares.sqrt())}, {dbeta, dbeta.abs().max(dbeta_squares.sqrt())}};
}

}  // namespace oracle
