#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lines.hpp"

// Sums of a formula. Float sums stay short: a tile of `tile_rows` vectors has sums of its own, and what adding them up
// rounds away is kept.

namespace batchnorm::detail {

inline constexpr int tile_rows = 8;

/// The k-th of `samples` places among `length`, spread out and at no regular distance: a pattern in the data could not
/// put the same value at all of them.
inline Index sample_place(Index k, Index samples, Index length) {
  constexpr Index golden = 40503, unit = 65536;  // the golden ratio's fraction
  return samples >= length ? k : (k * golden % unit) * length / unit;
}

/// Sums one vector of values at `at` and `Rows - 1` more, `stride` apart. Of a tail only the last `keep` lanes count.
template <class L, class Formula, int Rows, bool IsTail = false>
BATCHNORM_INLINE void sum_tile(const std::array<const typename L::Scalar*, Formula::inputs>& at,
                               const std::array<Index, Formula::inputs>& stride, const typename L::V& center,
                               typename L::V& sum, typename L::V& product_sum, Index keep = L::count) {
  L::clear(sum);
  L::clear(product_sum);
#pragma GCC unroll 8
  for (int row = 0; row < Rows; ++row) {
    typename L::V v[Formula::inputs];
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) L::load(v[k], at[k] + row * stride[k]);
    if constexpr (IsTail) Formula::template keep_last<L>(v, center, keep);
    Formula::accumulate(v, center, sum, product_sum);
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

/// Sums of each column about its center, over all rows.
template <class T, class Compute, class Formula_>
struct SumRows {
  using Scalar = T;
  using Formula = Formula_;
  Lines<T, Formula::inputs> rows;
  const Compute* center;
  Sums<Compute*> sums;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    for (Compute* const array : {sums.sum, sums.sum_error, sums.product_sum, sums.product_error}) {
      std::fill_n(array, rows.length, Compute(0));
    }
    Index row = 0;
    for (; row + tile_rows <= rows.lines; row += tile_rows) add_rows<L, tile_rows>(row);
    for (; row < rows.lines; ++row) add_rows<L, 1>(row);
  }

 private:
  template <class L, int Rows>
  BATCHNORM_INLINE void add_rows(Index row) const {
    const Index columns = rows.length;
    Index j = 0;
    for (; j + L::count <= columns; j += L::count) add_columns<L, Rows, false>(row, j, L::count);
    // The last vector is shifted back, over columns that have been counted.
    if (j < columns) add_columns<L, Rows, true>(row, columns - L::count, columns - j);
  }

  template <class L, int Rows, bool IsTail>
  BATCHNORM_INLINE void add_columns(Index row, Index column, Index keep) const {
    std::array<const T*, Formula::inputs> at;
    move_by(at, rows.in, rows.stride, row, column);
    typename L::V center_v, tile_sum, tile_product_sum;
    L::Computed::load(center_v, center + column);
    sum_tile<L, Formula, Rows, IsTail>(at, rows.stride, center_v, tile_sum, tile_product_sum, keep);
    add<L>(sums.sum + column, sums.sum_error + column, tile_sum);
    add<L>(sums.product_sum + column, sums.product_error + column, tile_product_sum);
  }

  template <class L>
  BATCHNORM_INLINE static void add(Compute* sum, Compute* error, const typename L::V& value) {
    typename L::V sum_v, error_v;
    L::Computed::load(sum_v, sum);
    L::Computed::load(error_v, error);
    add_compensated(sum_v, error_v, value);
    L::Computed::store(sum, sum_v);
    L::Computed::store(error, error_v);
  }
};

/// A value near the mean of each column, from rows all over the block.
template <class T, class Compute>
struct FindCenters {
  using Scalar = T;
  Lines<T, 1> rows;
  Compute* center;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    const Index samples = std::min<Index>(rows.lines, tile_rows);
    const Compute inv_samples = Compute(1) / static_cast<Compute>(samples);
    for (Index j = 0; j < rows.length; j += L::count) {
      const Index column = std::min<Index>(j, rows.length - L::count);
      typename L::V first, v, sum;
      L::load(first, rows.in[0] + column);
      L::clear(sum);
      for (Index k = 1; k < samples; ++k) {
        L::load(v, rows.in[0] + sample_place(k, samples, rows.lines) * rows.stride[0] + column);
        sum += v - first;
      }
      first += sum * inv_samples;
      L::Computed::store(center + column, first);
    }
  }
};

/// Sums about one center over all runs, in as many lanes as the widest target has.
template <class T, class Compute, class Formula_>
struct SumRuns {
  using Scalar = T;
  using Formula = Formula_;
  static constexpr Index lanes = std::max<Index>(pack_bytes / static_cast<Index>(sizeof(T)), 1);
  Lines<T, Formula::inputs> runs;
  Compute center;
  Sums<Compute*> sums;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    typename L::V center_v;
    L::fill(center_v, center);
    Pack<L> pack[L::per_pack];
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) pack[v].clear();
    for (Index line = 0; line < runs.lines; ++line) add_run<L>(line, center_v, pack);
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) pack[v].store(sums, v * L::count);
  }

 private:
  template <class L>
  struct Pack {
    Sums<typename L::V> total;
    typename L::V rest_sum, rest_product_sum;  // of one run, of what fills no tile

    BATCHNORM_INLINE void clear() {
      L::clear(total.sum);
      L::clear(total.sum_error);
      L::clear(total.product_sum);
      L::clear(total.product_error);
    }
    BATCHNORM_INLINE void clear_rest() {
      L::clear(rest_sum);
      L::clear(rest_product_sum);
    }
    BATCHNORM_INLINE void add(const typename L::V& sum, const typename L::V& product_sum) {
      add_compensated(total.sum, total.sum_error, sum);
      add_compensated(total.product_sum, total.product_error, product_sum);
    }
    BATCHNORM_INLINE void add_to_rest(const typename L::V& sum, const typename L::V& product_sum) {
      rest_sum += sum;
      rest_product_sum += product_sum;
    }
    BATCHNORM_INLINE void store(const Sums<Compute*>& to, Index lane) const {
      L::Computed::store(to.sum + lane, total.sum);
      L::Computed::store(to.sum_error + lane, total.sum_error);
      L::Computed::store(to.product_sum + lane, total.product_sum);
      L::Computed::store(to.product_error + lane, total.product_error);
    }
  };

  template <class L>
  BATCHNORM_INLINE void add_run(Index line, const typename L::V& center_v, Pack<L> (&pack)[L::per_pack]) const {
    constexpr Index step = L::count * L::per_pack;
    typename L::V sum, product_sum;
    Index i = 0;
    for (; i + tile_rows * step <= runs.length; i += tile_rows * step) {
#pragma GCC unroll 4
      for (int v = 0; v < L::per_pack; ++v) {
        sum_at<L, tile_rows, false>(line, i + v * L::count, center_v, sum, product_sum, L::count);
        pack[v].add(sum, product_sum);
      }
    }
    if (i == runs.length) return;
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) pack[v].clear_rest();
    for (; i + step <= runs.length; i += step) {
#pragma GCC unroll 4
      for (int v = 0; v < L::per_pack; ++v) {
        sum_at<L, 1, false>(line, i + v * L::count, center_v, sum, product_sum, L::count);
        pack[v].add_to_rest(sum, product_sum);
      }
    }
    // The last vector is shifted back, over values of the same run that have been counted.
    for (; i < runs.length; i += L::count) {
      const Index keep = std::min<Index>(runs.length - i, L::count);
      sum_at<L, 1, true>(line, i + keep - L::count, center_v, sum, product_sum, keep);
      pack[0].add_to_rest(sum, product_sum);
    }
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) pack[v].add(pack[v].rest_sum, pack[v].rest_product_sum);
  }

  template <class L, int Rows, bool IsTail>
  BATCHNORM_INLINE void sum_at(Index line, Index i, const typename L::V& center_v, typename L::V& sum,
                               typename L::V& product_sum, Index keep) const {
    std::array<const T*, Formula::inputs> at;
    std::array<Index, Formula::inputs> stride;
    move_by(at, runs.in, runs.stride, line, i);
    stride.fill(L::count * L::per_pack);
    sum_tile<L, Formula, Rows, IsTail>(at, stride, center_v, sum, product_sum, keep);
  }
};

}  // namespace batchnorm::detail
