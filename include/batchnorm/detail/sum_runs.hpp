#pragma once

#include <algorithm>

#include "batchnorm/detail/sum_tiles.hpp"

namespace batchnorm::detail {

/// Sums of each channel about its center over all its runs, in as many lanes as the widest target has.
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
    for (Index c = 0; c < channels.channels; ++c) {
      typename L::V of_channel[1][Formula::coefficients];
      L::fill(of_channel[0][Formula::center], center[c * lanes]);
#pragma GCC unroll 8
      for (std::size_t k = 1; k < Formula::coefficients; ++k) L::fill(of_channel[0][k], further[k][c]);
      Totals<L> totals;
      totals.clear();
      const auto runs = channels.of(c);
      for (Index line = 0; line < runs.lines; ++line) add_run<L>(runs, line, of_channel, totals);
      totals.store(sums, c * lanes);
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
  BATCHNORM_INLINE static void add_run(const Lines<In>& runs, Index line,
                                       const StripCoefficients<L, Formula, false, 1>& c, Totals<L>& totals) {
    constexpr int strip = packs * L::per_pack;
    constexpr Index step = L::count * strip;
    ForEach<In> stride;
    stride.fill(step);
    Ahead<In> ahead{.to = {}, .stride = stride};
    typename L::V sum[strip], product_sum[strip];
    Index i = 0, steps = runs.length / step;
    do {
      const Index tile = std::min<Index>(steps, tile_rows);
#pragma GCC unroll 8
      for (std::size_t k = 0; k < Formula::inputs; ++k) {
        ahead.to[k] = LookAhead(runs.ahead, runs.length, runs.stride[k]).from(i);
      }
      sum_tile<L, Formula, false, strip>(runs.place(line, i), stride, tile, ahead, c, sum, product_sum);
      i += tile * step;
      steps -= tile;
      if (steps == 0) add_end<L>(runs, line, i, c[0], sum[0], product_sum[0]);
#pragma GCC unroll 8
      for (int v = 0; v < L::per_pack; ++v) {
        totals.add(v, sum[v] + sum[v + L::per_pack], product_sum[v] + product_sum[v + L::per_pack]);
      }
    } while (steps > 0);
  }

  /// The values from i on, less than a step. The last vector is shifted back, over values of the same run that have
  /// been counted.
  template <class L>
  BATCHNORM_INLINE static void add_end(const Lines<In>& runs, Index line, Index i,
                                       const typename L::V (&c)[Formula::coefficients], typename L::V& sum,
                                       typename L::V& product_sum) {
    const ForEach<In> no_stride{};
    for (; i < runs.length; i += L::count) {
      const Index keep = std::min<Index>(runs.length - i, L::count);
      sum_ends<L, Formula, false>(runs.place(line, i + keep - L::count), no_stride, 1, keep, c, sum, product_sum);
    }
  }
};

}  // namespace batchnorm::detail
