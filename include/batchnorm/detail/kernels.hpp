#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lanes.hpp"

// The inner loops, each compiled for every target. Each walks many rows or runs in one call, reads each input once and,
// if it has an output, writes it once. All decisions are taken by the callers, reduce.hpp and map.hpp.

namespace batchnorm::detail {

inline constexpr int tile_rows = 8;

/// Rows of columns, or runs: `lines` of `length` values, `stride` apart in each input.
template <class T, int Inputs>
struct Lines {
  std::array<const T*, Inputs> in;
  std::array<Index, Inputs> stride;
  Index lines;
  Index length;
};

/// The k-th of `samples` places among `length`, spread out and at no regular distance: a pattern in the data could not
/// put the same value at all of them.
inline Index sample_place(Index k, Index samples, Index length) {
  constexpr Index golden = 40503, unit = 65536;  // the golden ratio's fraction
  return samples >= length ? k : (k * golden % unit) * length / unit;
}

// ---- Sums. Float sums stay short: a tile of `tile_rows` vectors has sums of its own.

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

template <class T, std::size_t Inputs>
BATCHNORM_INLINE void move_by(std::array<const T*, Inputs>& at, const std::array<const T*, Inputs>& from,
                              const std::array<Index, Inputs>& stride, Index lines, Index offset) {
#pragma GCC unroll 8
  for (std::size_t k = 0; k < Inputs; ++k) at[k] = from[k] + lines * stride[k] + offset;
}

/// Adds to a sum, whose rounding errors so far are in `error`, and takes them off (Kahan 1965).
template <class V>
BATCHNORM_INLINE void add_compensated(V& sum, V& error, const V& value) {
  const V corrected = value - error;
  const V total = sum + corrected;
  error = (total - sum) - corrected;
  sum = total;
}

/// Sums of each column about its center, over all rows. The true second sum is product_sum - error.
template <class T, class Compute, class Formula_>
struct SumRows {
  using Scalar = T;
  using Formula = Formula_;
  Lines<T, Formula::inputs> rows;
  const Compute* center;
  Compute* sum;
  Compute* product_sum;
  Compute* error;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    for (Compute* const array : {sum, product_sum, error}) std::fill_n(array, rows.length, Compute(0));
    Index row = 0;
    for (; row + tile_rows <= rows.lines; row += tile_rows) accumulate_rows<L, tile_rows>(row);
    for (; row < rows.lines; ++row) accumulate_rows<L, 1>(row);
  }

 private:
  template <class L, int Rows>
  BATCHNORM_INLINE void accumulate_rows(Index row) const {
    const Index columns = rows.length;
    Index j = 0;
    for (; j + L::count <= columns; j += L::count) accumulate_columns<L, Rows, false>(row, j, L::count);
    // The last vector is shifted back, over columns that have been counted.
    if (j < columns) accumulate_columns<L, Rows, true>(row, columns - L::count, columns - j);
  }

  template <class L, int Rows, bool IsTail>
  BATCHNORM_INLINE void accumulate_columns(Index row, Index column, Index keep) const {
    using Sums = typename L::Computed;
    std::array<const T*, Formula::inputs> at;
    move_by(at, rows.in, rows.stride, row, column);
    typename L::V center_v, tile_sum, tile_product_sum, sum_v, product_sum_v, error_v;
    Sums::load(center_v, center + column);
    sum_tile<L, Formula, Rows, IsTail>(at, rows.stride, center_v, tile_sum, tile_product_sum, keep);
    Sums::load(sum_v, sum + column);
    sum_v += tile_sum;
    Sums::store(sum + column, sum_v);
    Sums::load(product_sum_v, product_sum + column);
    Sums::load(error_v, error + column);
    add_compensated(product_sum_v, error_v, tile_product_sum);
    Sums::store(product_sum + column, product_sum_v);
    Sums::store(error + column, error_v);
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

/// Sums about one center over all runs, in as many lanes as the widest target has. Each run has sums of its own.
template <class T, class Compute, class Formula_>
struct SumRuns {
  using Scalar = T;
  using Formula = Formula_;
  static constexpr Index lanes = pack_bytes / static_cast<Index>(sizeof(T));
  Lines<T, Formula::inputs> runs;
  Compute center;
  Compute* sum;
  Compute* product_sum;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    Sums<L> total;
    for (Index line = 0; line < runs.lines; ++line) {
      std::array<const T*, Formula::inputs> begin;
      move_by(begin, runs.in, runs.stride, line, 0);
      Sums<L> of_run;
      sum_run<L>(begin, of_run);
      total.add(of_run);
    }
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) L::Computed::store(sum + v * L::count, total.sum[v]);
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) L::Computed::store(product_sum + v * L::count, total.product_sum[v]);
  }

 private:
  /// A pack of each sum.
  template <class L>
  struct Sums {
    typename L::V sum[L::per_pack], product_sum[L::per_pack];

    BATCHNORM_INLINE Sums() {
#pragma GCC unroll 4
      for (int v = 0; v < L::per_pack; ++v) L::clear(sum[v]);
#pragma GCC unroll 4
      for (int v = 0; v < L::per_pack; ++v) L::clear(product_sum[v]);
    }
    BATCHNORM_INLINE void add(const Sums& other) {
#pragma GCC unroll 4
      for (int v = 0; v < L::per_pack; ++v) sum[v] += other.sum[v];
#pragma GCC unroll 4
      for (int v = 0; v < L::per_pack; ++v) product_sum[v] += other.product_sum[v];
    }
  };

  template <class L>
  BATCHNORM_INLINE void sum_run(const std::array<const T*, Formula::inputs>& begin, Sums<L>& sums) const {
    constexpr Index pack = L::count * L::per_pack;
    Index i = 0;
    for (; i + tile_rows * pack <= runs.length; i += tile_rows * pack) add_packs<L, tile_rows>(begin, i, sums);
    for (; i + pack <= runs.length; i += pack) add_packs<L, 1>(begin, i, sums);
    // The last vector is shifted back, over values of the same run that have been counted.
    for (; i < runs.length; i += L::count) {
      const Index keep = std::min<Index>(runs.length - i, L::count);
      add_tile<L, 1, true>(begin, i + keep - L::count, sums.sum[0], sums.product_sum[0], keep);
    }
  }

  template <class L, int Rows>
  BATCHNORM_INLINE void add_packs(const std::array<const T*, Formula::inputs>& begin, Index i, Sums<L>& sums) const {
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) {
      add_tile<L, Rows, false>(begin, i + v * L::count, sums.sum[v], sums.product_sum[v], L::count);
    }
  }

  template <class L, int Rows, bool IsTail>
  BATCHNORM_INLINE void add_tile(const std::array<const T*, Formula::inputs>& begin, Index i, typename L::V& sum_v,
                                 typename L::V& product_sum_v, Index keep) const {
    std::array<const T*, Formula::inputs> at;
    std::array<Index, Formula::inputs> stride;
    move_by(at, begin, {}, 0, i);
    stride.fill(L::count * L::per_pack);
    typename L::V center_v, tile_sum, tile_product_sum;
    L::fill(center_v, center);
    sum_tile<L, Formula, Rows, IsTail>(at, stride, center_v, tile_sum, tile_product_sum, keep);
    sum_v += tile_sum;
    product_sum_v += tile_product_sum;
  }
};

// ---- Maps. The output may be one of the inputs, so nothing is read again after it may have been written.

/// How an output is written.
struct Writing {
  bool streams;    // past the cache
  bool backwards;  // each line from its end
};

/// Values of a line, given where their coefficients come from.
template <class L, class Formula, class Coefficients>
BATCHNORM_INLINE void map_at(const std::array<const typename L::Scalar*, Formula::inputs>& in, Index i,
                             const Coefficients& coefficients, typename L::V& result) {
  typename L::V v[Formula::inputs], c[Formula::coefficients];
#pragma GCC unroll 8
  for (std::size_t k = 0; k < Formula::inputs; ++k) L::load(v[k], in[k] + i);
#pragma GCC unroll 8
  for (int k = 0; k < Formula::coefficients; ++k) coefficients.get(c[k], k);
  Formula::apply(v, c, result);
}

/// The values [begin, end), which fill whole vectors.
template <class L, class Formula, class Coefficients>
BATCHNORM_INLINE void map_vectors(const std::array<const typename L::Scalar*, Formula::inputs>& in,
                                  typename L::Scalar* out, Index begin, Index end, Coefficients& coefficients,
                                  const Writing& writing) {
  const Index step = writing.backwards ? -L::count : L::count;
  Index i = writing.backwards ? end - L::count : begin;
  coefficients.start(i, step);
  for (Index left = (end - begin) / L::count; left > 0; --left) {
    typename L::V result;
    map_at<L, Formula>(in, i, coefficients, result);
    if (writing.streams) {
      L::stream(out + i, result);
    } else {
      L::store(out + i, result);
    }
    i += step;
    coefficients.next();
  }
}

/// A whole line. Streaming stores must be aligned: single values up to there, and behind the last vector.
template <class L, class Formula, class Coefficients, class SingleCoefficients>
BATCHNORM_INLINE void map_line(const std::array<const typename L::Scalar*, Formula::inputs>& in,
                               typename L::Scalar* out, Index length, Coefficients& coefficients,
                               SingleCoefficients& single_coefficients, const Writing& writing) {
  using Single = Lanes<typename L::Scalar, typename L::Compute, 0>;
  if (writing.streams) {
    const auto misaligned = static_cast<Index>(-reinterpret_cast<std::uintptr_t>(out) % std::max(L::bytes, 1));
    const Index begin = std::min(misaligned / static_cast<Index>(sizeof(typename L::Scalar)), length);
    const Index end = length - (length - begin) % L::count;
    map_vectors<Single, Formula>(in, out, 0, begin, single_coefficients, {false, false});
    map_vectors<L, Formula>(in, out, begin, end, coefficients, writing);
    map_vectors<Single, Formula>(in, out, end, length, single_coefficients, {false, false});
  } else {
    // The last vector is shifted back where the values end within it; computed first and stored last, for in place.
    const Index shifted = length - L::count;
    typename L::V last;
    coefficients.start(shifted, 0);
    map_at<L, Formula>(in, shifted, coefficients, last);
    map_vectors<L, Formula>(in, out, 0, round_up(shifted, L::count), coefficients, writing);
    L::store(out + shifted, last);
  }
}

/// By runs: the same coefficients for all values.
template <class L, int Count>
struct RunCoefficients {
  typename L::V values[static_cast<std::size_t>(Count)];

  BATCHNORM_INLINE explicit RunCoefficients(const std::array<typename L::Compute, static_cast<std::size_t>(Count)>& c) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Count; ++k) L::fill(values[k], c[k]);
  }
  BATCHNORM_INLINE void start(Index, Index) {}
  BATCHNORM_INLINE void next() {}
  BATCHNORM_INLINE void get(typename L::V& c, int k) const { c = values[k]; }
};

/// By columns: an array for each coefficient, repeated after each row of `width`. The arrays have one pack more.
template <class L, int Count>
struct ColumnCoefficients {
  std::array<typename L::Compute*, static_cast<std::size_t>(Count)> values;
  Index width;
  Index column = 0;
  Index step = 0;

  BATCHNORM_INLINE void start(Index i, Index by) {
    column = i < width ? i : i % width;  // a division costs as much as several vectors
    step = by >= 0 ? by : by + width;
    if (step < 0 || step >= width) step = (by % width + width) % width;
  }
  BATCHNORM_INLINE void next() {
    column += step;
    if (column >= width) column -= width;
  }
  BATCHNORM_INLINE void get(typename L::V& c, int k) const {
    L::Computed::load(c, values[static_cast<std::size_t>(k)] + column);
  }
};

template <class T, class Compute, class Formula_>
struct MapRuns {
  using Scalar = T;
  using Formula = Formula_;
  Lines<T, Formula::inputs> runs;
  T* out;
  Index out_stride;
  std::array<Compute, Formula::coefficients> coefficients;
  Writing writing;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    RunCoefficients<L, Formula::coefficients> c(coefficients);
    RunCoefficients<Lanes<T, Compute, 0>, Formula::coefficients> single(coefficients);
    for (Index line = 0; line < runs.lines; ++line) {
      std::array<const T*, Formula::inputs> in;
      move_by(in, runs.in, runs.stride, line, 0);
      map_line<L, Formula>(in, out + line * out_stride, runs.length, c, single, writing);
    }
    if (writing.streams) L::finish_streaming();
  }
};

template <class T, class Compute, class Formula_>
struct MapRows {
  using Scalar = T;
  using Formula = Formula_;
  Lines<T, Formula::inputs> rows;  // a line may be several rows of `width` columns without gaps
  T* out;
  Index out_stride;
  std::array<Compute*, Formula::coefficients> coefficients;
  Index width;
  Writing writing;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    ColumnCoefficients<L, Formula::coefficients> c{coefficients, width};
    ColumnCoefficients<Lanes<T, Compute, 0>, Formula::coefficients> single{coefficients, width};
    for (Index line = 0; line < rows.lines; ++line) {
      std::array<const T*, Formula::inputs> in;
      move_by(in, rows.in, rows.stride, line, 0);
      map_line<L, Formula>(in, out + line * out_stride, rows.length, c, single, writing);
    }
    if (writing.streams) L::finish_streaming();
  }
};

}  // namespace batchnorm::detail
