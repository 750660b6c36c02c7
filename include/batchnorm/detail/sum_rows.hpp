#pragma once

#include <algorithm>

#include "batchnorm/detail/sum_tiles.hpp"

namespace batchnorm::detail {

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
    const bool few_columns = rows.length <= narrow && rows.lines == block_rows;
    const Index together = few_columns ? tiles_together * tile_rows : tile_rows;
    for (Index row = 0; row < rows.lines; row += together) {
      const bool last = row + together >= rows.lines;
      add_rows<L>(row, std::min(together, rows.lines - row), last && !goes_on ? nothing : ahead);
    }
  }

 private:
  /// Vectors side by side: a row is read straight on, and the sums stay in registers.
  static constexpr int strip = Formula::coefficients == 1 ? max_strip : max_strip / 2;
  /// Tiles whose sums are added up before the columns take them in, where rows of few columns lie close together: in
  /// whole blocks alone, for in a few rows one would see what this rounds away.
  static constexpr Index tiles_together = 4, narrow = 256;

  template <class L>
  BATCHNORM_INLINE void add_rows(Index row, Index count, const ForEach<In>& ahead) const {
    const Index columns = rows.length;
    Index j = 0;
    for (; j + strip * L::count <= columns; j += strip * L::count) add_strip<L, strip>(row, count, j, ahead);
    for (; j + L::count <= columns; j += L::count) add_strip<L, 1>(row, count, j, ahead);
    if (j == columns) return;
    for (Index k = 0; k < count; k += tile_rows) {
      add_tail<L>(row + k, std::min<Index>(tile_rows, count - k), columns - L::count, columns - j);
    }
  }

  template <class L, int Strip>
  BATCHNORM_INLINE void add_strip(Index row, Index count, Index column, const ForEach<In>& ahead) const {
    typename L::V c[Strip][Formula::coefficients], sum[Strip], product_sum[Strip];
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) {
      load_coefficients<L>(column + s * L::count, c[s]);
      L::clear(sum[s]);
      L::clear(product_sum[s]);
    }
    for (Index k = 0; k < count; k += tile_rows) {
      typename L::V of_tile[Strip], product_of_tile[Strip];
      sum_tile<L, Formula, true, Strip>(place(row + k, column), rows.stride, std::min<Index>(tile_rows, count - k),
                                        ahead, c, of_tile, product_of_tile);
#pragma GCC unroll 8
      for (int s = 0; s < Strip; ++s) {
        sum[s] += of_tile[s];
        product_sum[s] += product_of_tile[s];
      }
    }
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) add<L>(column + s * L::count, sum[s], product_sum[s]);
  }

  /// The last vector is shifted back, over columns that have been counted.
  template <class L>
  BATCHNORM_INLINE void add_tail(Index row, Index count, Index column, Index keep) const {
    typename L::V c[Formula::coefficients], sum, product_sum;
    load_coefficients<L>(column, c);
    L::clear(sum);
    L::clear(product_sum);
    sum_ends<L, Formula, true>(place(row, column), rows.stride, count, keep, c, sum, product_sum);
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

}  // namespace batchnorm::detail
