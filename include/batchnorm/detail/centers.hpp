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

/// About the first value, so that equal ones stay exact: of value(line, i).
template <class Compute, class Value>
Compute average(Index lines, Index length, const Value& value) {
  const Compute origin = value(0, 0);
  Compute sum(0);
  for (Index line = 0; line < lines; ++line) {
    for (Index i = 0; i < length; ++i) sum += value(line, i) - origin;
  }
  return origin + sum / Compute(static_cast<double>(lines * length));
}

/// Of the first input.
template <class In>
typename In::Compute find_center(const Lines<In>& runs) {
  using Compute = typename In::Compute;
  constexpr Index samples = 16, sampled_runs = 4;
  if (runs.lines * runs.length <= samples) {
    return average<Compute>(runs.lines, runs.length,
                            [&](Index line, Index i) { return runs.template value<0>(line, i); });
  }
  const Compute origin = runs.template value<0>(0, 0);
  Compute sums[sampled_runs] = {Compute(0), Compute(0), Compute(0), Compute(0)};
#pragma GCC unroll 16
  for (Index k = 0; k < samples; ++k) {
    const Index run = sample_place(k % sampled_runs, sampled_runs, runs.lines);
    sums[k % sampled_runs] += runs.template value<0>(run, sample_place(k, samples, runs.length)) - origin;
  }
  return origin + ((sums[0] + sums[1]) + (sums[2] + sums[3])) * (Compute(1) / Compute(samples));
}

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

/// find_center from values that count.
template <std::size_t weights, class In>
typename In::Compute find_weighted_center(const Lines<In>& runs) {
  using Compute = typename In::Compute;
  constexpr Index samples = 16;
  const Compute origin = first_weighted<weights>(runs);
  Compute sum(0), found(0);
  for (Index k = 0; k < samples; ++k) {
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
    constexpr Index most_samples = 8;
    const Index samples = std::min<Index>(rows.lines, most_samples);
    const Compute inv_samples = Compute(1) / Compute(static_cast<double>(samples));
    for (Index j = 0; j < rows.length; j += L::count) {
      const Index column = std::min<Index>(j, rows.length - L::count);
      typename L::V first, v, sum;
      rows.in.template load<L>(first, 0, column);
      L::clear(sum);
      for (Index k = 1; k < samples; ++k) {
        rows.in.template load<L>(v, 0, sample_place(k, samples, rows.lines) * rows.stride[0] + column);
        sum += v - first;
      }
      first += sum * inv_samples;
      L::store(center + column, first);
    }
  }
};

}  // namespace batchnorm::detail
