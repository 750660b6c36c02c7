#pragma once

#include <algorithm>

#include "batchnorm/detail/sum_tiles.hpp"

namespace batchnorm::detail {

/// Sums of each channel about its center over all its runs, in as many lanes as the widest target has. The first runs
/// of all channels come before the second ones: they follow one another in memory.
template <class In, class Formula>
struct SumRuns {
  using Compute = typename In::Compute;
  static constexpr Index lanes = pack_lanes<Compute>;
  ChannelRuns<In> channels;
  const Compute* center;                          // like the sums, of every lane; the first one counts
  FurtherCoefficients<Compute, Formula> further;  // of each channel
  Sums<Compute*> sums;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    const SumRuns unchanged = *this;  // where it stays in registers: nothing that is stored could be part of it
    for (Index line = 0; line < channels.runs.lines; ++line) {
      for (Index c = 0; c < channels.channels; ++c) unchanged.template add_run<L>(line, c);
    }
    clear_rest<L>();
  }

 private:
  /// The lanes that no vector fills.
  template <class L>
  BATCHNORM_INLINE void clear_rest() const {
    constexpr Index filled = L::count * L::per_pack;
    if constexpr (filled < lanes) {
      for (Compute* const array : {sums.sum, sums.sum_error, sums.product_sum, sums.product_error}) {
        for (Index c = 0; c < channels.channels; ++c)
          std::fill_n(array + c * lanes + filled, lanes - filled, Compute(0));
      }
    }
  }

  /// Packs side by side: one alone would wait for each addition.
  static constexpr int packs = 2;

  template <class L>
  BATCHNORM_INLINE void add_run(Index line, Index c) const {
    constexpr int strip = packs * L::per_pack;
    constexpr Index step = L::count * strip;
    const Index length = channels.runs.length;
    Pointers<In> at = channels.of(c).place(line, 0);
    typename L::V coefficients[1][Formula::coefficients], sum[strip], product_sum[strip];
    L::fill(coefficients[0][Formula::center], center[c * lanes]);
#pragma GCC unroll 8
    for (std::size_t k = 1; k < Formula::coefficients; ++k) L::fill(coefficients[0][k], further[k][c]);
    ForEach<In> stride;
    stride.fill(step);
    Ahead<In> ahead{.to = {}, .stride = stride};
    Index i = 0, steps = length / step;
    bool first = line == 0;
    do {
      const Index tile = std::min<Index>(steps, tile_rows);
      if (channels.runs.ahead != 0) {
#pragma GCC unroll 8
        for (std::size_t k = 0; k < Formula::inputs; ++k) ahead.to[k] = channels.ahead_across(k, c, i);
      }
      sum_tile<L, Formula, false, strip>(at, stride, tile, ahead, coefficients, sum, product_sum);
      at = at.behind(tile * step);
      i += tile * step;
      steps -= tile;
      if (steps == 0) add_end<L>(at, length - i, coefficients[0], sum[0], product_sum[0]);
#pragma GCC unroll 8
      for (int v = 0; v < L::per_pack; ++v) {
        take_in<L>(sums, c * lanes + v * L::count, first, sum[v] + sum[v + L::per_pack],
                   product_sum[v] + product_sum[v + L::per_pack]);
      }
      first = false;
    } while (steps > 0);
  }

  /// The last values of a run, less than a step. The last vector is shifted back, over values that have been counted.
  template <class L>
  BATCHNORM_INLINE static void add_end(Pointers<In> at, Index values,
                                       const typename L::V (&coefficients)[Formula::coefficients], typename L::V& sum,
                                       typename L::V& product_sum) {
    const ForEach<In> no_stride{};
    for (; values > 0; values -= L::count) {
      const Index keep = std::min<Index>(values, L::count);
      at = at.behind(keep);
      sum_ends<L, Formula, false>(at.behind(-L::count), no_stride, 1, keep, coefficients, sum, product_sum);
    }
  }
};

}  // namespace batchnorm::detail
