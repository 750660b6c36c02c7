#pragma once

#include <algorithm>
#include <bit>

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
    const Index tile = rows.lines >= many_rows ? tiles_together * tile_rows : tile_rows;
    const bool in_order = rows.length <= strip<L> * L::count;
    const Index most = rows.length <= few_columns ? tile : tile_rows;
    const Index step = rows.ahead == 0 || in_order ? most : rows_from_memory(most);
    const Reach reach = reach_of(step, in_order), nothing{};
    const bool goes_on = rows.stride[0] == rows.length;
    for (Index row = 0; row < rows.lines; row += tile) {
      const Index end = std::min(row + tile, rows.lines);
      for (Index k = row; k < end; k += step) {
        const Sweep sweep{k, std::min(k + step, end), k == row, k + step >= end};
        add_rows<L>(sweep, sweep.end == rows.lines && !goes_on ? nothing : reach);
      }
    }
  }

 private:
  /// Vectors side by side: a row is read straight on, and the sums stay in registers, of which AVX-512 has twice as
  /// many.
  template <class L>
  static constexpr int strip = Formula::coefficients <= (L::bytes == pack_bytes ? 4 : 1) ? max_strip : max_strip / 2;
  /// Tiles whose sums are added up before the columns take them in: of many rows alone, for in a few one would see what
  /// this rounds away. They are read together where rows of few columns lie close together.
  static constexpr Index tiles_together = 4, many_rows = 256, few_columns = 256;
  static constexpr Index values_in(Index bytes) { return bytes / static_cast<Index>(sizeof(typename In::Widest)); }

  /// Rows that are read at a time where they come from memory: with as many that are asked for in advance they stay in
  /// L1.
  BATCHNORM_INLINE Index rows_from_memory(Index most) const {
    constexpr Index least = 2, together = values_in(Index(8) << 10) / tensors_summed<In, Formula>;
    return static_cast<Index>(
        std::bit_floor(static_cast<std::size_t>(std::clamp(together / rows.length, least, most))));
  }

  /// Rows that are read at a time, from one end to the other, and where they stand in their tile.
  struct Sweep {
    Index begin, end;
    bool begins_tile, ends_tile;
  };

  /// How far ahead memory is asked for, in an input whose rows lie close together and in another one: at least as far
  /// as a sweep goes, where it is not read in the order of memory.
  struct Reach {
    Index values, rows;
  };
  BATCHNORM_INLINE Reach reach_of(Index step, bool in_order) const {
    if (rows.ahead == 0) return {};
    return {std::max(rows.ahead, in_order ? 0 : step * rows.length),
            round_up(ceil_div(values_in(memory_access().near_prefetch_bytes), rows.length),
                     std::min<Index>(step, tile_rows))};
  }

  /// Rows that lie close together are asked for in the order of memory, which is how it is read fastest, in whatever
  /// order a sweep reads them; others at the same columns of a later row.
  BATCHNORM_INLINE Ahead<In> ahead_of(const Sweep& sweep, Index row, Index column, Index width,
                                      const Reach& reach) const {
    if (reach.values == 0) return {};
    Ahead<In> result;
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) {
      if (const Index stride = rows.stride[k]; stride == rows.length) {
        const Index read_before = (sweep.end - sweep.begin) * column + (row - sweep.begin) * width;
        const Index place = (row - sweep.begin) * stride + column;
        result.to[k] = reach.values + read_before - place;
        result.stride[k] = width;
      } else {
        result.to[k] = reach.rows * stride;
        result.stride[k] = stride;
      }
    }
    return result;
  }

  template <class L>
  BATCHNORM_INLINE void add_rows(const Sweep& sweep, const Reach& reach) const {
    const Index columns = rows.length;
    Index j = 0;
    constexpr int together = strip<L>;
    for (; j + together * L::count <= columns; j += together * L::count) add_strip<L, together>(sweep, j, reach);
    for (; j + L::count <= columns; j += L::count) add_strip<L, 1>(sweep, j, reach);
    if (j == columns) return;
    for (Index row = sweep.begin; row < sweep.end; row += tile_rows) {
      add_tail<L>(row, std::min<Index>(tile_rows, sweep.end - row), columns - L::count, columns - j);
    }
  }

  template <class L, int Strip>
  BATCHNORM_INLINE void add_strip(const Sweep& sweep, Index column, const Reach& reach) const {
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
                                        ahead_of(sweep, row, column, Strip * L::count, reach), c, of_tile,
                                        product_of_tile);
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
