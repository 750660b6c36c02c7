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
  PartialSums<Compute*> partial;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    for (Compute* const array : {sums.sum, sums.sum_error, sums.product_sum, sums.product_error}) {
      std::fill_n(array, rows.length, Compute(0));
    }
    const bool few_columns = rows.length <= narrow, from_memory = rows.ahead != 0;
    const Index tile = few_columns && rows.lines == block_rows ? tiles_together * tile_rows : tile_rows;
    const Index sweep = few_columns || !from_memory ? tile : rows_from_memory();
    const ForEach<In> ahead = rows_ahead(std::min<Index>(sweep, tile_rows)), nothing{};
    const bool goes_on = rows.stride[0] == rows.length;
    for (Index row = 0; row < rows.lines; row += tile) {
      const Index end = std::min(row + tile, rows.lines);
      for (Index k = row; k < end; k += sweep) {
        const Sweep rows_together{k, std::min(k + sweep, end), k == row, k + sweep >= end};
        add_rows<L>(rows_together, rows_together.end == rows.lines && !goes_on ? nothing : ahead);
      }
    }
  }

 private:
  /// Vectors side by side: a row is read straight on, and the sums stay in registers, of which AVX-512 has twice as
  /// many.
  template <class L>
  static constexpr int strip = Formula::coefficients <= (L::bytes == pack_bytes ? 4 : 1) ? max_strip : max_strip / 2;
  /// Tiles whose sums are added up before the columns take them in, where rows of few columns lie close together: in
  /// whole blocks alone, for in a few rows one would see what this rounds away.
  static constexpr Index tiles_together = 4, narrow = 256;

  /// Rows of more columns that are read at a time where they come from memory: a core reads ahead of few streams only.
  BATCHNORM_INLINE Index rows_from_memory() const {
    constexpr Index streams = 4, tensors = In::tensors - (has_weights<Formula> ? 1 : 0);
    static_assert(tensors <= streams);
    return tensors == 1 && rows.length > 2 * narrow ? streams / 2 : streams / tensors;
  }

  /// Rows that are read at a time, from one end to the other, and where they stand in their tile.
  struct Sweep {
    Index begin, end;
    bool begins_tile, ends_tile;
  };

  template <class L>
  BATCHNORM_INLINE void add_rows(const Sweep& sweep, const ForEach<In>& ahead) const {
    const Index columns = rows.length;
    Index j = 0;
    constexpr int together = strip<L>;
    for (; j + together * L::count <= columns; j += together * L::count) add_strip<L, together>(sweep, j, ahead);
    for (; j + L::count <= columns; j += L::count) add_strip<L, 1>(sweep, j, ahead);
    if (j == columns) return;
    for (Index row = sweep.begin; row < sweep.end; row += tile_rows) {
      add_tail<L>(row, std::min<Index>(tile_rows, sweep.end - row), columns - L::count, columns - j);
    }
  }

  template <class L, int Strip>
  BATCHNORM_INLINE void add_strip(const Sweep& sweep, Index column, const ForEach<In>& ahead) const {
    typename L::V c[Strip][Formula::coefficients], sum[Strip], product_sum[Strip];
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) {
      const Index at = column + s * L::count;
      load_coefficients<L>(at, c[s]);
      if (sweep.begins_tile) {
        L::clear(sum[s]);
        L::clear(product_sum[s]);
      } else {
        L::load(sum[s], partial.sum + at);
        L::load(product_sum[s], partial.product_sum + at);
      }
    }
    for (Index row = sweep.begin; row < sweep.end; row += tile_rows) {
      typename L::V of_tile[Strip], product_of_tile[Strip];
      sum_tile<L, Formula, true, Strip>(place(row, column), rows.stride, std::min<Index>(tile_rows, sweep.end - row),
                                        ahead, c, of_tile, product_of_tile);
#pragma GCC unroll 8
      for (int s = 0; s < Strip; ++s) {
        sum[s] += of_tile[s];
        product_sum[s] += product_of_tile[s];
      }
    }
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) {
      const Index at = column + s * L::count;
      if (sweep.ends_tile) {
        add<L>(at, sum[s], product_sum[s]);
      } else {
        L::store(partial.sum + at, sum[s]);
        L::store(partial.product_sum + at, product_sum[s]);
      }
    }
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

  /// To the same columns in the next rows that are read together, or as many times as many on as are far enough.
  BATCHNORM_INLINE ForEach<In> rows_ahead(Index together) const {
    const Index ahead = round_up(ceil_div(rows.ahead, rows.length), together);
    ForEach<In> result;
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) result[k] = ahead * rows.stride[k];
    return result;
  }

  BATCHNORM_INLINE Pointers<In> place(Index row, Index column) const {
    Pointers<In> at = rows.place(row, column);
    if constexpr (has_weights<Formula>) at.template advance<Formula::weights>(-column);
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
