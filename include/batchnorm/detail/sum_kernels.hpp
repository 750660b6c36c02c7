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

template <class T>
inline constexpr Index run_lanes = std::max<Index>(pack_bytes / static_cast<Index>(sizeof(T)), 1);

/// Sums about one center over all runs, in as many lanes as the widest target has.
template <class T, class Compute, class Formula_>
struct SumRuns {
  using Scalar = T;
  using Formula = Formula_;
  static constexpr Index lanes = run_lanes<T>;
  Lines<T, Formula::inputs> runs;
  Compute center;
  Sums<Compute*> sums;  // of every lane

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
    constexpr Index used = L::per_pack * L::count;
    for (Compute* const array : {sums.sum, sums.sum_error, sums.product_sum, sums.product_error}) {
      std::fill_n(array + used, lanes - used, Compute(0));
    }
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

/// What a block gives for each channel: sums about a center.
template <class Statistic>
struct ChannelSums {
  Statistic *center, *sum, *product_sum;
};

/// The columns of each channel, together, without their errors.
template <class Compute, class Statistic>
struct JoinColumns {
  using Scalar = Compute;
  const Compute* center;
  Sums<Compute*> columns;
  Index channels, inner, fold;  // columns: fold x channels x inner
  ChannelSums<Statistic> to;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Statistic, Bytes / static_cast<int>(sizeof(Statistic) / sizeof(Compute))>;
    Index c = 0;
    if (inner == 1) {
      for (; c + L::count <= channels; c += L::count) join_across<L>(c);
      for (; c < channels; ++c) join_across<Single>(c);
    }
    for (; c < channels; ++c) join_channel<L>(c);
  }

 private:
  using Single = Lanes<Compute, Statistic, 0>;

  template <class L>
  BATCHNORM_INLINE void add(Index column, typename L::V& sum, typename L::V& product_sum) const {
    typename L::V value, error;
    L::load(value, columns.sum + column);
    L::load(error, columns.sum_error + column);
    sum += value - error;
    L::load(value, columns.product_sum + column);
    L::load(error, columns.product_error + column);
    product_sum += value - error;
  }

  /// Channels side by side, one column each in a row.
  template <class L>
  BATCHNORM_INLINE void join_across(Index c) const {
    typename L::V center_v, sum, product_sum;
    L::clear(sum);
    L::clear(product_sum);
    for (Index k = 0; k < fold; ++k) add<L>(k * channels + c, sum, product_sum);
    L::load(center_v, center + c);
    L::Computed::store(to.center + c, center_v);
    L::Computed::store(to.sum + c, sum);
    L::Computed::store(to.product_sum + c, product_sum);
  }

  template <class L>
  BATCHNORM_INLINE void join_channel(Index c) const {
    typename L::V sums, product_sums;
    L::clear(sums);
    L::clear(product_sums);
    Statistic sum(0), product_sum(0);
    for (Index k = 0; k < fold; ++k) {
      Index column = (k * channels + c) * inner;
      const Index end = column + inner;
      for (; column + L::count <= end; column += L::count) add<L>(column, sums, product_sums);
      for (; column < end; ++column) add<Single>(column, sum, product_sum);
    }
    to.center[c] = static_cast<Statistic>(center[c * inner]);
    to.sum[c] = sum + sum_lanes<L>(sums);
    to.product_sum[c] = product_sum + sum_lanes<L>(product_sums);
  }

  template <class L>
  BATCHNORM_INLINE static Statistic sum_lanes(const typename L::V& v) {
    Statistic lanes[L::count];
    L::Computed::store(lanes, v);
#pragma GCC unroll 4
    for (int half = L::count / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
      for (int k = 0; k < half; ++k) lanes[k] += lanes[k + half];
    }
    return lanes[0];
  }
};

// Once in a block, channel by channel: vectors of the baseline serve.

template <class Statistic, class F>
void for_channels(Index channels, const F& f) {
  using L = Lanes<Statistic, Statistic, has_vectors<Statistic> ? 16 : 0>;
  Index c = 0;
  for (; c + L::count <= channels; c += L::count) f(L{}, c);
  for (; c < channels; ++c) f(Lanes<Statistic, Statistic, 0>{}, c);
}

/// Sums of `count` values per channel become what Formula gives, in place: first in `sum`, second in `product_sum`.
template <class Formula, class Statistic>
void finish_channels(const ChannelSums<Statistic>& sums, const Statistic* mean, Index channels, Index count) {
  const Statistic inv_count = Statistic(1) / Statistic(static_cast<double>(count));
  for_channels<Statistic>(channels, [&]<class L>(L, Index c) {
    typename L::V center_v, mean_v, sum, product_sum, first, second;
    L::load(center_v, sums.center + c);
    L::load(mean_v, mean + c);
    L::load(sum, sums.sum + c);
    L::load(product_sum, sums.product_sum + c);
    Formula::finish(center_v, mean_v, sum, product_sum, inv_count, first, second);
    L::store(sums.sum + c, first);
    L::store(sums.product_sum + c, second);
  });
}

/// Takes `size` more values per channel into first and second, which have `before`.
template <class Formula, class Statistic>
void merge_channels(Statistic* first, Statistic* second, const Statistic* other_first, const Statistic* other_second,
                    Index channels, Index before, Index size) {
  if (before == 0) {
    std::copy_n(other_first, channels, first);
    std::copy_n(other_second, channels, second);
    return;
  }
  const Statistic share = Statistic(static_cast<double>(size)) / Statistic(static_cast<double>(before + size));
  const Statistic cross = Statistic(static_cast<double>(before)) * share;
  for_channels<Statistic>(channels, [&]<class L>(L, Index c) {
    typename L::V a, b, other_a, other_b;
    L::load(a, first + c);
    L::load(b, second + c);
    L::load(other_a, other_first + c);
    L::load(other_b, other_second + c);
    Formula::merge(a, b, other_a, other_b, share, cross);
    L::store(first + c, a);
    L::store(second + c, b);
  });
}

}  // namespace batchnorm::detail
