#pragma once

#include <algorithm>

#include "batchnorm/detail/sum_tiles.hpp"

namespace batchnorm::detail {

/// Rows that are read at a time, and where they stand in their tile.
struct Sweep {
  Index begin, end;
  bool first_tile, begins_tile, ends_tile;
};

/// What sums over rows begin with and end in: arrays with an entry for each column.
template <class Compute, class Formula>
struct ColumnSums {
  const Compute* center;
  FurtherCoefficients<Compute, Formula> further;
  Sums<Compute*> sums;
  PartialSums<Compute*> partial;

  /// The columns of a last vector that is shifted back begin at zero.
  template <class L>
  BATCHNORM_INLINE void clear_end(Index length) const {
    const Index columns = length % L::count, begin = length - columns;
    for (Compute* const array : {sums.sum, sums.sum_error, sums.product_sum, sums.product_error}) {
      std::fill_n(array + begin, columns, Compute(0));
    }
  }

  /// Vectors side by side from a column on: their coefficients, and zeros to add to.
  template <class L, int Vectors>
  BATCHNORM_INLINE void begin(Index column, typename L::V (&c)[Vectors][Formula::coefficients],
                              typename L::V (&sum)[Vectors], typename L::V (&product_sum)[Vectors]) const {
#pragma GCC unroll 8
    for (int s = 0; s < Vectors; ++s) begin<L>(column + s * L::count, c[s], sum[s], product_sum[s]);
  }
  template <class L>
  BATCHNORM_INLINE void begin(Index column, typename L::V (&c)[Formula::coefficients], typename L::V& sum,
                              typename L::V& product_sum) const {
    L::load(c[Formula::center], center + column);
    if constexpr (Formula::coefficients > 1) {
#pragma GCC unroll 8
      for (std::size_t k = 1; k < Formula::coefficients; ++k) L::load(c[k], further[k] + column);
    }
    L::clear(sum);
    L::clear(product_sum);
  }

  /// Adds what the tile has so far, in the vector from a column on; keeps it there for the next sweep if there is one.
  template <class L>
  BATCHNORM_INLINE bool complete(const Sweep& sweep, Index column, typename L::V& sum,
                                 typename L::V& product_sum) const {
    if (!sweep.begins_tile) {
      typename L::V before, product_before;
      L::load(before, partial.sum + column);
      L::load(product_before, partial.product_sum + column);
      sum += before;
      product_sum += product_before;
    }
    if (sweep.ends_tile) return true;
    L::store(partial.sum + column, sum);
    L::store(partial.product_sum + column, product_sum);
    return false;
  }
};

}  // namespace batchnorm::detail
