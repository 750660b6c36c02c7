#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lines.hpp"

// A formula applied to each value. The output may be one of the inputs, so nothing is read again after it may have been
// written.

namespace batchnorm::detail {

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
  for (int k = 0; k < Formula::inputs; ++k) {
    if (Coefficients::by_columns && k == Formula::weights) {
      L::fill(v[k], static_cast<typename L::Compute>(*in[static_cast<std::size_t>(k)]));
    } else {
      L::load(v[k], in[static_cast<std::size_t>(k)] + i);
    }
  }
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

/// A whole line. Streaming stores must be aligned: single values up to there, and behind the last vector. Else the last
/// vector is shifted back where the values end within it; computed first and stored last, for in place.
template <class L, class Formula, class Coefficients, class SingleCoefficients>
BATCHNORM_INLINE void map_line(const std::array<const typename L::Scalar*, Formula::inputs>& in,
                               typename L::Scalar* out, Index length, Coefficients& coefficients,
                               SingleCoefficients& single_coefficients, const Writing& writing) {
  using Single = Lanes<typename L::Scalar, typename L::Compute, 0>;
  const Index shifted = length - L::count;
  Index begin = 0, end = round_up(shifted, L::count);
  typename L::V last;
  L::clear(last);
  if (writing.streams) {
    const auto misaligned = static_cast<Index>(-reinterpret_cast<std::uintptr_t>(out) % L::memory_bytes);
    begin = std::min(misaligned / static_cast<Index>(sizeof(typename L::Scalar)), length);
    end = length - (length - begin) % L::count;
    for (const auto& [from, to] : {std::pair{Index(0), begin}, std::pair{end, length}}) {
      map_vectors<Single, Formula>(in, out, from, to, single_coefficients, {false, false});
    }
  } else {
    coefficients.start(shifted, 0);
    map_at<L, Formula>(in, shifted, coefficients, last);
  }
  map_vectors<L, Formula>(in, out, begin, end, coefficients, writing);
  if (!writing.streams) L::store(out + shifted, last);
}

/// By runs: the same coefficients for all values.
template <class L, int Count>
struct RunCoefficients {
  static constexpr bool by_columns = false;
  typename L::V values[static_cast<std::size_t>(Count)];

  BATCHNORM_INLINE RunCoefficients(const std::array<typename L::Compute*, static_cast<std::size_t>(Count)>& from,
                                   Index c) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Count; ++k) L::fill(values[k], from[k][c]);
  }
  BATCHNORM_INLINE void start(Index, Index) {}
  BATCHNORM_INLINE void next() {}
  BATCHNORM_INLINE void get(typename L::V& c, int k) const { c = values[k]; }
};

/// By columns: an array for each coefficient, repeated after each row of `width`. Where rows follow one another, the
/// arrays have one pack more, with the first columns again.
template <class L, int Count>
struct ColumnCoefficients {
  static constexpr bool by_columns = true;
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
  ChannelRuns<T, Formula::inputs> channels;
  T* out;
  Index out_stride, out_channel_stride;
  std::array<Compute*, Formula::coefficients> coefficients;  // of each channel
  Writing writing;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<T, Compute, Bytes>;
    for (Index c = 0; c < channels.channels; ++c) {
      RunCoefficients<L, Formula::coefficients> of_channel(coefficients, c);
      RunCoefficients<Lanes<T, Compute, 0>, Formula::coefficients> single(coefficients, c);
      const auto runs = channels.of(c);
      for (Index line = 0; line < runs.lines; ++line) {
        std::array<const T*, Formula::inputs> in;
        move_by(in, runs.in, runs.stride, line, 0);
        T* const to = out + c * out_channel_stride + line * out_stride;
        map_line<L, Formula>(in, to, runs.length, of_channel, single, writing);
      }
    }
    if (writing.streams) L::finish_streaming();
  }
};

template <class T, class Compute, class Formula_>
struct MapRows {
  using Scalar = T;
  using Formula = Formula_;
  Lines<T, Formula::inputs> rows;  // without weights, a line may be several rows of `width` columns without gaps
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
