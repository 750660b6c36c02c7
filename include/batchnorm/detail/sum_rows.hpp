#pragma once

#include <algorithm>

#include "batchnorm/activation.hpp"
#include "batchnorm/detail/column_sums.hpp"
#include "batchnorm/detail/sum_tiles.hpp"

namespace batchnorm::detail {

/// Sums of each column about its center, over all rows. A tile of few columns is read strip by strip: the sums of a
/// strip stay in registers. One of many columns is read band by band, a few rows from one end to the other, which is
/// how memory is read fastest: the sums wait in L1 for the next band.
template <class In, class Formula>
struct SumRows {
  using Compute = typename In::Compute;
  Lines<In> rows;
  bool many_values;  // whether each channel has many
  bool cached;       // whether a cache may hold all that is read
  bool narrow;       // whether rows are read straight on, strip by strip, whether their memory is asked for or not
  ColumnSums<Compute, Formula> columns;

  static constexpr Index max_narrow_columns = max_strip * pack_lanes<Compute>;
  /// Columns of several inputs that are few enough for it.
  static constexpr bool is_narrow(Index columns) { return In::count > 1 && columns <= max_narrow_columns; }

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    columns.template clear_end<L>(rows.length);
    const Index tile = many_values ? tiles_together * tile_rows : tile_rows;
    const bool by_strips = narrow || rows.length <= (rows.ahead == 0 ? few_columns<L> : strip<L> * L::count);
    const bool row_by_row = rows_with_gaps<L> < band_rows<L> && rows.ahead != 0 && rows.has_gaps();
    const Index step = by_strips ? tile : row_by_row ? rows_with_gaps<L> : band_rows<L>;
    const Reach reach = rows.ahead == 0 ? Reach{} : reach_of<L>(by_strips);
    for (Index row = 0; row < rows.lines; row += tile) {
      const Index end = std::min(row + tile, rows.lines);
      for (Index k = row; k < end; k += step) {
        const Sweep sweep{k, std::min(k + step, end), row == 0, k == row, k + step >= end};
        Index added = 0;  // columns
        if constexpr (Bytes != 0) {
          if (by_strips) {
            added = add_strips<L, wide_strip>(sweep, reach, 0);
            if constexpr (strip<L> < wide_strip) added = add_strips<L, strip<L>>(sweep, reach, added);
          } else if (row_by_row) {
            if constexpr (rows_with_gaps<L> < band_rows<L>) {
              added = add_band<L, rows_with_gaps<L>, strip<L>, true>(sweep, reach);
            }
          } else if (sweep.end - k == band_rows<L>) {
            added = asks(sweep) ? add_asked_band<L>(sweep, reach)
                                : add_band<L, band_rows<L>, strip<L>, false>(sweep, reach);
          }
        }
        add_vectors<L>(sweep, added);
      }
    }
  }

 private:
  /// Vectors side by side, of few columns: the fewer strips, the longer the stretches of a row that are read.
  static constexpr int wide_strip = Formula::coefficients <= 4 ? max_strip : max_strip / 2;
  /// The same in bands, and of what is left of few columns: coefficients and sums stay in registers, of which AVX-512
  /// has twice as many.
  template <class L>
  static constexpr int strip = L::bytes == pack_bytes || Formula::coefficients == 1 ? wide_strip : max_strip / 2;
  template <class L>
  static constexpr bool is_avx2 = L::bytes == 32;
  /// Of what no cache holds: with AVX2 a cache line of each row.
  template <class L>
  static constexpr int line = pack_bytes / (L::count * static_cast<int>(sizeof(typename In::Widest)));
  template <class L>
  static constexpr int far_strip = is_avx2<L> ? std::min(strip<L>, line<L>) : strip<L>;
  /// Rows of a band, in whose order values are added; and where memory is asked for in rows with gaps between them.
  template <class L>
  static constexpr int band_rows = std::max((is_avx2<L> ? 8 : 4) / static_cast<int>(tensors_summed<In, Formula>), 1);
  template <class L>
  static constexpr int rows_with_gaps = tensors_summed<In, Formula> == 1 ? band_rows<L> : 1;
  /// The columns take in the sums of `tile_rows` rows at a time, or of so many times as many where each channel has
  /// many values: in a few one would see what this rounds away.
  static constexpr Index tiles_together = 4;
  template <class L>
  static constexpr Index few_columns = is_avx2<L> ? 64 : 256;

  /// Which memory is asked for in advance: that `far` values behind the first row, `by_column` further for each column
  /// and `by_row` for each row.
  struct Reach {
    ForEach<In> far{}, by_column{}, by_row{};
  };

  /// Rows that follow one another are asked for in the order of memory, which is how it is read fastest, in whatever
  /// order a band reads them; others at the same columns of a later row.
  template <class L>
  BATCHNORM_INLINE Reach reach_of(bool by_strips) const {
    const Index near = memory_access().near_prefetch_bytes / static_cast<Index>(sizeof(typename In::Widest));
    Reach reach;
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) {
      const Index stride = rows.stride[k];
      reach.by_column[k] = 1;
      reach.by_row[k] = stride;
      if (stride != rows.length) {
        reach.far[k] = round_up(ceil_div(near, rows.length), rows_with_gaps<L>) * stride;
      } else if (by_strips) {
        reach.far[k] = rows.ahead;
      } else {
        reach.far[k] = std::max(rows.ahead, band_rows<L> * stride);
        reach.by_column[k] = band_rows<L>;
        reach.by_row[k] = far_strip<L> * L::count;
      }
    }
    return reach;
  }
  /// What to ask for at a row and a column of a band. In wide strips, which rows without gaps have that a cache may
  /// hold, its distance from the band's first values is a constant, which takes no registers. Beyond the caches it is
  /// not: so many lines asked for at once would keep waiting what is read.
  template <class L, int Rows, int vectors>
  BATCHNORM_INLINE static Index far_of(const Reach& reach, std::size_t k, Index row, Index column) {
    if constexpr (Rows > 1 && far_strip<L> < vectors) {
      return reach.far[k] + column * Rows + row * vectors * L::count;
    } else {
      return reach.far[k] + column * reach.by_column[k] + row * reach.by_row[k];
    }
  }
  /// Behind the last rows there are none to ask for, where they have gaps.
  BATCHNORM_INLINE bool asks(const Sweep& sweep) const {
    return rows.ahead != 0 && (sweep.end < rows.lines || !rows.has_gaps());
  }

  // ---- Few columns.

  /// From a column on, as many whole strips as there are; where they end.
  template <class L, int vectors>
  BATCHNORM_INLINE Index add_strips(const Sweep& tile, const Reach& reach, Index column) const {
    constexpr Index step = vectors * L::count;
    const Ahead<In> ahead{asks(tile) ? reach.far : ForEach<In>{}, rows.stride};
    Index j = column;
    for (; j + step <= rows.length; j += step) add_strip<L, vectors>(tile, j, ahead);
    return j;
  }

  template <class L, int vectors>
  BATCHNORM_INLINE void add_strip(const Sweep& tile, Index column, const Ahead<In>& ahead) const {
    typename L::V c[vectors][Formula::coefficients], sum[vectors], product_sum[vectors];
    columns.template begin<L>(column, c, sum, product_sum);
    for (Index row = tile.begin; row < tile.end; row += tile_rows) {
      typename L::V of_rows[vectors], product_of_rows[vectors];
      sum_tile<L, Formula, true, vectors>(place(row, column), rows.stride, std::min<Index>(tile_rows, tile.end - row),
                                          ahead, c, of_rows, product_of_rows);
#pragma GCC unroll 8
      for (int s = 0; s < vectors; ++s) {
        sum[s] += of_rows[s];
        product_sum[s] += product_of_rows[s];
      }
    }
#pragma GCC unroll 8
    for (int s = 0; s < vectors; ++s) {
      take_in<L>(columns.sums, column + s * L::count, tile.first_tile, sum[s], product_sum[s]);
    }
  }

  // ---- Many columns.

  template <class L>
  BATCHNORM_INLINE Index add_asked_band(const Sweep& band, const Reach& reach) const {
    if constexpr (far_strip<L> < strip<L>) {
      if (!cached || rows.has_gaps()) return add_band<L, band_rows<L>, far_strip<L>, true>(band, reach);
    }
    return add_band<L, band_rows<L>, strip<L>, true>(band, reach);
  }

  template <class L, int Rows, int vectors, bool Asks>
  BATCHNORM_INLINE Index add_band(const Sweep& band, const Reach& reach) const {
    auto at = [&]<std::size_t... r>(std::index_sequence<r...>) BATCHNORM_INLINE_LAMBDA {
      return std::array<Pointers<In>, sizeof...(r)>{rows.place(band.begin + static_cast<Index>(r), 0)...};
    }
    (std::make_index_sequence<Rows>());
#pragma GCC unroll 8
    for (Pointers<In>& place : at) place.hold_pointers();
    const SumRows unchanged = *this;  // where pointers stay in registers: nothing that is stored could be one of them
    constexpr Index step = vectors * L::count;
    Index j = 0;
    for (; j + step <= rows.length; j += step) {
      unchanged.template add_band_strip<L, Rows, vectors, Asks>(band, at, reach, j);
    }
    return j;
  }

  template <class L, int Rows, int vectors, bool Asks>
  BATCHNORM_INLINE void add_band_strip(const Sweep& band, const std::array<Pointers<In>, Rows>& at, const Reach& reach,
                                       Index column) const {
    typename L::V c[vectors][Formula::coefficients], sum[vectors], product_sum[vectors];
    columns.template begin<L>(column, c, sum, product_sum);
    for_each_index<static_cast<std::size_t>(Rows)>([&](auto row) BATCHNORM_INLINE_LAMBDA {
#pragma GCC unroll 8
      for (int s = 0; s < vectors; ++s) {
        const Index offset = s * L::count;
        typename L::V v[Formula::inputs];
        for_each_index<Formula::inputs>([&](auto k) BATCHNORM_INLINE_LAMBDA {
          if constexpr (k == Formula::weights) {
            at[row].template fill<L, k>(v[k], 0);
          } else {
            if constexpr (Asks) {
              at[0].template prefetch_strip<L, k>(s, 0, far_of<L, Rows, vectors>(reach, k, row, column));
            }
            at[row].template load<L, k>(v[k], column + offset);
          }
        });
        if constexpr (In::count > 1) settle(v[In::count - 1]);  // or both sums would read it from memory
        Formula::accumulate(v, c[s], sum[s], product_sum[s]);
      }
    });
#pragma GCC unroll 8
    for (int s = 0; s < vectors; ++s) {
      const Index at_column = column + s * L::count;
      if (columns.template complete<L>(band, at_column, sum[s], product_sum[s])) {
        take_in<L>(columns.sums, at_column, band.first_tile, sum[s], product_sum[s]);
      }
    }
  }

  // ---- Both.

  /// Vectors from a column on, one by one; the last one is shifted back, over columns that have been counted.
  template <class L>
  BATCHNORM_INLINE void add_vectors(const Sweep& sweep, Index column) const {
    for (Index j = column; j < rows.length; j += L::count) {
      const Index keep = std::min<Index>(rows.length - j, L::count), begin = j + keep - L::count;
      typename L::V c[Formula::coefficients], sum, product_sum;
      columns.template begin<L>(begin, c, sum, product_sum);
      for (Index row = sweep.begin; row < sweep.end; row += tile_rows) {
        typename L::V of_rows, product_of_rows;
        L::clear(of_rows);
        L::clear(product_of_rows);
        sum_ends<L, Formula, true>(place(row, begin), rows.stride, std::min<Index>(tile_rows, sweep.end - row), keep, c,
                                   of_rows, product_of_rows);
        sum += of_rows;
        product_sum += product_of_rows;
      }
      if (!columns.template complete<L>(sweep, j, sum, product_sum)) continue;
      take_in<L>(columns.sums, begin, sweep.first_tile && begin == j, sum, product_sum);
    }
  }

  BATCHNORM_INLINE Pointers<In> place(Index row, Index column) const {
    Pointers<In> at = rows.place(row, column);
    if constexpr (has_weights<Formula>) at.template advance<Formula::weights>(-column);
    return at;
  }
};

}  // namespace batchnorm::detail
