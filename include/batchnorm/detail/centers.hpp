#pragma once

#include <algorithm>

#include "batchnorm/detail/lines.hpp"

// A value near the mean of each channel, to be subtracted from all: the closer it is, the fewer digits the sums lose.
// It comes from samples all over the lines, for their beginning may be a border.

namespace batchnorm::detail {

inline constexpr Index sample_unit = 65536;

/// Places all over a line, in `sample_unit`ths of it and at no regular distance: a pattern in the data could not put
/// the same value at all of them.
inline Index sample_fraction(Index k) {
  constexpr Index golden = 40503;  // the golden ratio's fraction
  return k * golden % sample_unit;
}

/// The k-th of `samples` places among `length`.
inline Index sample_place(Index k, Index samples, Index length) {
  return samples == length ? k : sample_fraction(k) * length / sample_unit;
}

/// Of `count` values, `stride` apart: about the first one, so that equal ones stay exact.
template <class Compute>
Compute average(const Compute* values, Index count, Index stride) {
  Compute sum(0);
  for (Index k = 1; k < count; ++k) sum += values[k * stride] - values[0];
  return values[0] + sum / Compute(static_cast<double>(count));
}

/// Values of a channel that its center comes from, at most.
inline constexpr Index center_samples = 8;

/// Where the centers of runs are looked for: at the same places in each channel, or all its places if those are few.
template <class In>
class CenterPlaces {
 public:
  using Compute = typename In::Compute;

  /// `runs` are those of any channel.
  explicit CenterPlaces(const Lines<In>& runs) {
    constexpr Index sampled_runs = 4;
    if (runs.lines * runs.length <= center_samples) {
      for (Index line = 0; line < runs.lines; ++line) {
        for (Index i = 0; i < runs.length; ++i) add(runs, line, i);
      }
    } else {
      for (Index k = 0; k < center_samples; ++k) {
        add(runs, sample_place(k % sampled_runs, sampled_runs, runs.lines),
            sample_place(k, center_samples, runs.length));
      }
    }
    inv_count_ = Compute(1) / Compute(static_cast<double>(count_));
  }

  /// The average of the channel whose first run begins at `run`: about its first value, so that equal ones stay exact.
  Compute center(const typename In::First* run) const {
    constexpr Index side_by_side = 4;
    const Compute origin = static_cast<Compute>(run[0]);
    const auto difference = [&](Index k) -> Compute { return static_cast<Compute>(run[offset_[k]]) - origin; };
    Compute sums[side_by_side] = {Compute(0), Compute(0), Compute(0), Compute(0)};
    Index k = 0;
    for (; k + side_by_side <= count_; k += side_by_side) {
#pragma GCC unroll 4
      for (Index j = 0; j < side_by_side; ++j) sums[j] += difference(k + j);
    }
    for (; k < count_; ++k) sums[0] += difference(k);
    return origin + ((sums[0] + sums[1]) + (sums[2] + sums[3])) * inv_count_;
  }

 private:
  void add(const Lines<In>& runs, Index line, Index i) { offset_[count_++] = line * runs.stride[0] + i; }

  Index offset_[center_samples];
  Index count_ = 0;
  Compute inv_count_;
};

/// The first value that counts.
template <std::size_t weights, class In>
typename In::Compute first_weighted(const Lines<In>& runs) {
  for (Index line = 0; line < runs.lines; ++line) {
    for (Index i = 0; i < runs.length; ++i) {
      if (runs.template value<weights>(line, i) != typename In::Compute(0)) return runs.template value<0>(line, i);
    }
  }
  return runs.template value<0>(0, 0);
}

/// The average of samples that count.
template <std::size_t weights, class In>
typename In::Compute find_weighted_center(const Lines<In>& runs) {
  using Compute = typename In::Compute;
  const Compute origin = first_weighted<weights>(runs);
  Compute sum(0), found(0);
  for (Index k = 0; k < center_samples; ++k) {
    // The digits of the line that are lost are the place in it.
    const Index place = sample_fraction(k) * runs.lines, line = place / sample_unit;
    const Index i = place % sample_unit * runs.length / sample_unit;
    if (runs.template value<weights>(line, i) == Compute(0)) continue;
    sum += runs.template value<0>(line, i) - origin;
    found += Compute(1);
  }
  return found == Compute(0) ? origin : origin + sum / found;
}

/// Of each column, from rows all over the block.
template <class In>
struct FindCenters {
  using Compute = typename In::Compute;
  Lines<In> rows;
  Compute* center;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    const Index samples = std::min<Index>(rows.lines, center_samples);
    const Compute inv_samples = Compute(1) / Compute(static_cast<double>(samples));
    Index offset[center_samples];
    for (Index k = 1; k < samples; ++k) offset[k] = sample_place(k, samples, rows.lines) * rows.stride[0];
    for (Index j = 0; j < rows.length; j += L::count) {
      const Index column = std::min<Index>(j, rows.length - L::count);
      typename L::V first, v, sum;
      rows.in.template load<L, 0>(first, column);
      L::clear(sum);
      for (Index k = 1; k < samples; ++k) {
        rows.in.template load<L, 0>(v, offset[k] + column);
        sum += v - first;
      }
      first += sum * inv_samples;
      L::store(center + column, first);
    }
  }
};

}  // namespace batchnorm::detail
