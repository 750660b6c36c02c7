#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lines.hpp"

// Sums of a formula. Float sums stay short: a tile of `tile_rows` vectors has sums of its own, and what adding them up
// rounds away is kept.

namespace batchnorm::detail {

inline constexpr int tile_rows = 8;

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

/// One vector of each input. By columns all share the weight of their row.
template <class L, class Formula, bool ByColumns, class In>
BATCHNORM_INLINE void load_inputs(const Pointers<In>& at, const ForEach<In>& stride, Index row, Index offset,
                                  typename L::V (&v)[Formula::inputs]) {
#pragma GCC unroll 8
  for (std::size_t k = 0; k < Formula::inputs; ++k) {
    if (ByColumns && k == Formula::weights) {
      at.template fill<L>(v[k], k, row * stride[k]);
    } else {
      at.template load<L>(v[k], k, row * stride[k] + offset);
    }
  }
}

/// Sums `Strip` vectors of values side by side at `at`, and those of `rows` - 1 more rows, `stride` apart. May ask for
/// what lies `ahead` of each vector.
template <class L, class Formula, bool ByColumns, bool Prefetches, int Strip, class In>
BATCHNORM_INLINE void sum_vectors(const Pointers<In>& at, const ForEach<In>& stride, Index rows,
                                  const ForEach<In>& ahead, const typename L::V (&c)[Strip][Formula::coefficients],
                                  typename L::V (&sum)[Strip], typename L::V (&product_sum)[Strip]) {
  for (Index row = 0; row < rows; ++row) {
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) {
      const Index offset = s * L::count;
#pragma GCC unroll 8
      for (std::size_t k = 0; Prefetches && k < Formula::inputs; ++k) {
        if (ByColumns && k == Formula::weights) continue;
        at.template prefetch<L>(k, row * stride[k] + offset, ahead[k]);
      }
      typename L::V v[Formula::inputs];
      load_inputs<L, Formula, ByColumns>(at, stride, row, offset, v);
      Formula::accumulate(v, c[s], sum[s], product_sum[s]);
    }
  }
}

/// The sums of a tile, from zero on.
template <class L, class Formula, bool ByColumns, int Strip, class In>
BATCHNORM_INLINE void sum_tile(const Pointers<In>& at, const ForEach<In>& stride, Index rows, const ForEach<In>& ahead,
                               const typename L::V (&c)[Strip][Formula::coefficients], typename L::V (&sum)[Strip],
                               typename L::V (&product_sum)[Strip]) {
#pragma GCC unroll 8
  for (int s = 0; s < Strip; ++s) {
    L::clear(sum[s]);
    L::clear(product_sum[s]);
  }
  if (ahead[0] == 0) {
    sum_vectors<L, Formula, ByColumns, false, Strip>(at, stride, rows, ahead, c, sum, product_sum);
  } else {
    sum_vectors<L, Formula, ByColumns, true, Strip>(at, stride, rows, ahead, c, sum, product_sum);
  }
}

/// The same for one vector of which only the last `keep` lanes count.
template <class L, class Formula, bool ByColumns, class In>
BATCHNORM_INLINE void sum_tail(const Pointers<In>& at, const ForEach<In>& stride, Index rows, Index keep,
                               const typename L::V (&c)[Formula::coefficients], typename L::V& sum,
                               typename L::V& product_sum) {
  L::clear(sum);
  L::clear(product_sum);
  for (Index row = 0; row < rows; ++row) {
    typename L::V v[Formula::inputs];
    load_inputs<L, Formula, ByColumns>(at, stride, row, 0, v);
    Formula::template keep_last<L>(v, c[Formula::center], keep);
    Formula::accumulate(v, c, sum, product_sum);
  }
}

/// Adds to a sum and to what its roundings have added too much (Kahan 1965): the true sum is sum - error.
template <class V>
BATCHNORM_INLINE void add_compensated(V& sum, V& error, const V& value) {
  const V corrected = value - error;
  const V total = sum + corrected;
  error = (total - sum) - corrected;
  sum = total;
}

/// Sums of many values: those of a formula, and their errors.
template <class T>
struct Sums {
  T sum, sum_error, product_sum, product_error;
};

/// Arrays of coefficients, where the formula has more than the center.
template <class Compute, class Formula>
using FurtherCoefficients = std::array<Compute*, Formula::coefficients == 1 ? 0 : Formula::coefficients>;

/// Sums of each column about its center, over all rows.
template <class In, class Formula>
struct SumRows {
  using Compute = typename In::Compute;
  Lines<In> rows;
  const Compute* center;  // of every column, like those below
  FurtherCoefficients<Compute, Formula> further;
  Sums<Compute*> sums;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    for (Compute* const array : {sums.sum, sums.sum_error, sums.product_sum, sums.product_error}) {
      std::fill_n(array, rows.length, Compute(0));
    }
    const ForEach<In> ahead = tiles_ahead(), nothing{};
    const bool goes_on = rows.stride[0] == rows.length;
    for (Index row = 0; row < rows.lines; row += tile_rows) {
      const bool last = row + tile_rows >= rows.lines;
      add_tile<L>(row, std::min<Index>(tile_rows, rows.lines - row), last && !goes_on ? nothing : ahead);
    }
  }

 private:
  /// Vectors side by side: a row is read straight on, and the sums stay in registers.
  static constexpr int strip = Formula::coefficients == 1 ? 4 : 2;

  template <class L>
  BATCHNORM_INLINE void add_tile(Index row, Index tile, const ForEach<In>& ahead) const {
    const Index columns = rows.length;
    Index j = 0;
    for (; j + strip * L::count <= columns; j += strip * L::count) add_strip<L, strip>(row, tile, j, ahead);
    for (; j + L::count <= columns; j += L::count) add_strip<L, 1>(row, tile, j, ahead);
    if (j < columns) add_tail<L>(row, tile, columns - L::count, columns - j);
  }

  template <class L, int Strip>
  BATCHNORM_INLINE void add_strip(Index row, Index tile, Index column, const ForEach<In>& ahead) const {
    const auto at = place(row, column);
    typename L::V c[Strip][Formula::coefficients], sum[Strip], product_sum[Strip];
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) load_coefficients<L>(column + s * L::count, c[s]);
    sum_tile<L, Formula, true, Strip>(at, rows.stride, tile, ahead, c, sum, product_sum);
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) add<L>(column + s * L::count, sum[s], product_sum[s]);
  }

  /// The last vector is shifted back, over columns that have been counted.
  template <class L>
  BATCHNORM_INLINE void add_tail(Index row, Index tile, Index column, Index keep) const {
    const auto at = place(row, column);
    typename L::V c[Formula::coefficients], sum, product_sum;
    load_coefficients<L>(column, c);
    sum_tail<L, Formula, true>(at, rows.stride, tile, keep, c, sum, product_sum);
    add<L>(column, sum, product_sum);
  }

  /// To the same columns in the next tile of rows, or as many tiles on as are far enough.
  BATCHNORM_INLINE ForEach<In> tiles_ahead() const {
    const Index ahead = round_up(ceil_div(rows.ahead, rows.length), tile_rows);
    ForEach<In> result;
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) result[k] = ahead * rows.stride[k];
    return result;
  }

  BATCHNORM_INLINE Pointers<In> place(Index row, Index column) const {
    Pointers<In> at = rows.place(row, column);
    if constexpr (has_weights<Formula>) at.advance(Formula::weights, -column);
    return at;
  }

  template <class L>
  BATCHNORM_INLINE void load_coefficients(Index column, typename L::V (&c)[Formula::coefficients]) const {
    L::load(c[Formula::center], center + column);
    if constexpr (Formula::coefficients > 1) {
#pragma GCC unroll 8
      for (std::size_t k = 1; k < Formula::coefficients; ++k) L::load(c[k], further[k] + column);
    }
  }

  template <class L>
  BATCHNORM_INLINE void add(Index column, const typename L::V& sum, const typename L::V& product_sum) const {
    add<L>(sums.sum + column, sums.sum_error + column, sum);
    add<L>(sums.product_sum + column, sums.product_error + column, product_sum);
  }

  template <class L>
  BATCHNORM_INLINE static void add(Compute* sum, Compute* error, const typename L::V& value) {
    typename L::V sum_v, error_v;
    L::load(sum_v, sum);
    L::load(error_v, error);
    add_compensated(sum_v, error_v, value);
    L::store(sum, sum_v);
    L::store(error, error_v);
  }
};

/// A value near the mean of each column, from rows all over the block.
template <class In>
struct FindCenters {
  using Compute = typename In::Compute;
  Lines<In> rows;
  Compute* center;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    const Index samples = std::min<Index>(rows.lines, tile_rows);
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

template <class Compute>
inline constexpr Index run_lanes = std::max<Index>(pack_bytes / static_cast<Index>(sizeof(Compute)), 1);

/// Sums of each channel about its center over all its runs, in as many lanes as the widest target has.
template <class In, class Formula>
struct SumRuns {
  using Compute = typename In::Compute;
  static constexpr Index lanes = run_lanes<Compute>;
  ChannelRuns<In> channels;
  const Compute* center;                          // like the sums, of every lane; the first one counts
  FurtherCoefficients<Compute, Formula> further;  // of each channel
  Sums<Compute*> sums;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    for (Index c = 0; c < channels.channels; ++c) {
      typename L::V of_channel[L::per_pack][Formula::coefficients];
#pragma GCC unroll 8
      for (int v = 0; v < L::per_pack; ++v) {
        L::fill(of_channel[v][Formula::center], center[c * lanes]);
#pragma GCC unroll 8
        for (std::size_t k = 1; k < Formula::coefficients; ++k) L::fill(of_channel[v][k], further[k][c]);
      }
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

  template <class L>
  BATCHNORM_INLINE static void add_run(const Lines<In>& runs, Index line,
                                       const typename L::V (&c)[L::per_pack][Formula::coefficients],
                                       Totals<L>& totals) {
    constexpr Index step = L::count * L::per_pack;
    ForEach<In> stride, ahead;
    stride.fill(step);
    typename L::V sum[L::per_pack], product_sum[L::per_pack];
    Index i = 0;
    for (Index steps = runs.length / step; steps > 0;) {
      const Index tile = std::min<Index>(steps, tile_rows);
#pragma GCC unroll 8
      for (std::size_t k = 0; k < Formula::inputs; ++k) {
        ahead[k] = LookAhead(runs.ahead, runs.length, runs.stride[k]).from(i);
      }
      sum_tile<L, Formula, false, L::per_pack>(runs.place(line, i), stride, tile, ahead, c, sum, product_sum);
#pragma GCC unroll 8
      for (int v = 0; v < L::per_pack; ++v) totals.add(v, sum[v], product_sum[v]);
      i += tile * step;
      steps -= tile;
    }
    // The last vector is shifted back, over values of the same run that have been counted.
    for (; i < runs.length; i += L::count) {
      const Index keep = std::min<Index>(runs.length - i, L::count);
      sum_tail<L, Formula, false>(runs.place(line, i + keep - L::count), stride, 1, keep, c[0], sum[0], product_sum[0]);
      totals.add(0, sum[0], product_sum[0]);
    }
  }
};

}  // namespace batchnorm::detail
