#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lines.hpp"

// Sums of a formula. Float sums stay short: a tile of `tile_rows` vectors has sums of its own, and what adding them up
// rounds away is kept.

namespace batchnorm::detail {

inline constexpr int tile_rows = 8;

/// Those that a sum reads value by value: weights hardly count.
template <class In, class Formula>
inline constexpr Index tensors_summed = In::tensors - (has_weights<Formula> ? 1 : 0);

/// One vector of each input. By columns all share the weight of their row.
template <class L, class Formula, bool ByColumns, class In>
BATCHNORM_INLINE void load_inputs(const Pointers<In>& at, const ForEach<In>& stride, Index row, Index offset,
                                  typename L::V (&v)[Formula::inputs]) {
  for_each_index<Formula::inputs>([&](auto k) BATCHNORM_INLINE_LAMBDA {
    if constexpr (ByColumns && k == Formula::weights) {
      at.template fill<L, k>(v[k], row * stride[k]);
    } else {
      at.template load<L, k>(v[k], row * stride[k] + offset);
    }
  });
}

/// Coefficients of vectors side by side: by columns each has its own, in a run all have the same.
template <class L, class Formula, bool ByColumns, int Strip>
using StripCoefficients = typename L::V[ByColumns ? Strip : 1][Formula::coefficients];

/// Which memory is asked for in advance: that `to` values behind the first row's, for each further row `stride` behind.
template <class In>
struct Ahead {
  ForEach<In> to{}, stride{};
  BATCHNORM_INLINE bool asks() const { return to[0] != 0; }
};

/// Sums `Strip` vectors of values side by side at `at`, and those of `rows` - 1 more rows, `stride` apart. May ask for
/// as much of each input in advance.
template <class L, class Formula, bool ByColumns, bool Prefetches, int Strip, class In>
BATCHNORM_INLINE void sum_vectors(const Pointers<In>& at, const ForEach<In>& stride, Index rows, const Ahead<In>& ahead,
                                  const StripCoefficients<L, Formula, ByColumns, Strip>& c, typename L::V (&sum)[Strip],
                                  typename L::V (&product_sum)[Strip]) {
  for (Index row = 0; row < rows; ++row) {
#pragma GCC unroll 8
    for (int s = 0; s < Strip; ++s) {
      const Index offset = s * L::count;
      for_each_index<Formula::inputs>([&](auto k) BATCHNORM_INLINE_LAMBDA {
        if constexpr (Prefetches && !(ByColumns && k == Formula::weights)) {
          at.template prefetch_strip<L, k>(s, row * ahead.stride[k], ahead.to[k]);
        }
      });
      typename L::V v[Formula::inputs];
      load_inputs<L, Formula, ByColumns>(at, stride, row, offset, v);
      Formula::accumulate(v, c[ByColumns ? s : 0], sum[s], product_sum[s]);
    }
  }
}

/// The sums of a tile, from zero on.
template <class L, class Formula, bool ByColumns, int Strip, class In>
BATCHNORM_INLINE void sum_tile(const Pointers<In>& at, const ForEach<In>& stride, Index rows, const Ahead<In>& ahead,
                               const StripCoefficients<L, Formula, ByColumns, Strip>& c, typename L::V (&sum)[Strip],
                               typename L::V (&product_sum)[Strip]) {
#pragma GCC unroll 8
  for (int s = 0; s < Strip; ++s) {
    L::clear(sum[s]);
    L::clear(product_sum[s]);
  }
  if (ahead.asks()) {
    sum_vectors<L, Formula, ByColumns, true, Strip>(at, stride, rows, ahead, c, sum, product_sum);
  } else {
    sum_vectors<L, Formula, ByColumns, false, Strip>(at, stride, rows, ahead, c, sum, product_sum);
  }
}

/// Adds one vector of each row, of which only the last `keep` lanes count.
template <class L, class Formula, bool ByColumns, class In>
BATCHNORM_INLINE void sum_ends(const Pointers<In>& at, const ForEach<In>& stride, Index rows, Index keep,
                               const typename L::V (&c)[Formula::coefficients], typename L::V& sum,
                               typename L::V& product_sum) {
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

/// Those of a tile that has not been read to its end.
template <class T>
struct PartialSums {
  T sum, product_sum;
};

/// Adds a vector to a sum and what its roundings have added too much, both in memory.
template <class L, class Compute>
BATCHNORM_INLINE void add_compensated(Compute* sum, Compute* error, const typename L::V& value) {
  typename L::V sum_v, error_v;
  L::load(sum_v, sum);
  L::load(error_v, error);
  add_compensated(sum_v, error_v, value);
  L::store(sum, sum_v);
  L::store(error, error_v);
}

/// Adds the sums of a tile, in vectors, to those in memory; the first ones are stored there.
template <class L, class Compute>
BATCHNORM_INLINE void take_in(const Sums<Compute*>& to, Index place, bool first, const typename L::V& sum,
                              const typename L::V& product_sum) {
  if (first) {
    typename L::V zero;
    L::clear(zero);
    L::store(to.sum + place, sum);
    L::store(to.sum_error + place, zero);
    L::store(to.product_sum + place, product_sum);
    L::store(to.product_error + place, zero);
  } else {
    add_compensated<L>(to.sum + place, to.sum_error + place, sum);
    add_compensated<L>(to.product_sum + place, to.product_error + place, product_sum);
  }
}

/// Arrays of coefficients, where the formula has more than the center.
template <class Compute, class Formula>
using FurtherCoefficients = std::array<Compute*, Formula::coefficients == 1 ? 0 : Formula::coefficients>;

}  // namespace batchnorm::detail
