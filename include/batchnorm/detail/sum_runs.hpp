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
    for (Index line = 0; line < channels.runs.lines; ++line) {
      for (Index c = 0; c < channels.channels; ++c) {
        Totals<L> totals;
        if (line == 0) {
          totals.clear();
        } else {
          totals.load(sums, c * lanes);
        }
        add_run<L>(line, c, totals);
        totals.store(sums, c * lanes);
      }
    }
  }

 private:
  /// The sums of all lanes, in vectors.
  template <class L>
  struct Totals {
    typename L::V sum[L::per_pack], sum_error[L::per_pack], product_sum[L::per_pack], product_error[L::per_pack];

    BATCHNORM_INLINE void clear() {
#pragma GCC unroll 8
      for (int v = 0; v < L::per_pack; ++v) {
        L::clear(sum[v]);
        L::clear(sum_error[v]);
        L::clear(product_sum[v]);
        L::clear(product_error[v]);
      }
    }
    BATCHNORM_INLINE void add(int v, const typename L::V& value, const typename L::V& product) {
      add_compensated(sum[v], sum_error[v], value);
      add_compensated(product_sum[v], product_error[v], product);
    }
    BATCHNORM_INLINE void load(const Sums<Compute*>& from, Index lane) {
#pragma GCC unroll 8
      for (int v = 0; v < L::per_pack; ++v, lane += L::count) {
        L::load(sum[v], from.sum + lane);
        L::load(sum_error[v], from.sum_error + lane);
        L::load(product_sum[v], from.product_sum + lane);
        L::load(product_error[v], from.product_error + lane);
      }
    }
    BATCHNORM_INLINE void store(const Sums<Compute*>& to, Index lane) const {
#pragma GCC unroll 8
      for (int v = 0; v < L::per_pack; ++v, lane += L::count) {
        L::store(to.sum + lane, sum[v]);
        L::store(to.sum_error + lane, sum_error[v]);
        L::store(to.product_sum + lane, product_sum[v]);
        L::store(to.product_error + lane, product_error[v]);
      }
      constexpr Index rest = lanes - L::count * L::per_pack;
      for (Compute* const array : {to.sum, to.sum_error, to.product_sum, to.product_error}) {
        std::fill_n(array + lane, rest, Compute(0));
      }
    }
  };

  /// Packs side by side: one alone would wait for each addition.
  static constexpr int packs = 2;

  template <class L>
  BATCHNORM_INLINE void add_run(Index line, Index c, Totals<L>& totals) const {
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
        totals.add(v, sum[v] + sum[v + L::per_pack], product_sum[v] + product_sum[v + L::per_pack]);
      }
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
