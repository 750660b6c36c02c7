#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lines.hpp"

// A formula applied to each value. The output may be one of the inputs, so nothing is read again after it may have been
// written.

namespace batchnorm::detail {

/// Values of a line, given where their coefficients come from.
template <class L, class Formula, class In, class Coefficients>
BATCHNORM_INLINE void map_at(const Pointers<In>& in, Index i, const Coefficients& coefficients, typename L::V& result) {
  typename L::V v[Formula::inputs], c[Formula::coefficients];
#pragma GCC unroll 8
  for (std::size_t k = 0; k < Formula::inputs; ++k) {
    if (Coefficients::by_columns && k == Formula::weights) {
      in.template fill<L>(v[k], k, 0);
    } else {
      in.template load<L>(v[k], k, i);
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < Formula::coefficients; ++k) coefficients.get(c[k], k);
  Formula::apply(v, c, result);
}

/// Where a map writes: lines `stride` apart.
template <class T>
struct OutputLines {
  T* out;
  Index stride;

  BATCHNORM_INLINE OutputLines from(Index offset) const { return {out + offset, stride}; }
};

/// The last whole vector and one that ends with the line, which share values: both are read before either is written.
template <class L, class Formula, class In, class Out, class Coefficients>
BATCHNORM_INLINE void map_end(const Pointers<In>& in, Out* out, Index length, Coefficients& coefficients) {
  using To = LanesOver<L, Out>;
  const Index whole = length - length % L::count - L::count, shifted = length - L::count;
  typename L::V result, last;
  coefficients.start(whole);
  map_at<L, Formula>(in, whole, coefficients, result);
  coefficients.start(shifted);
  map_at<L, Formula>(in, shifted, coefficients, last);
  To::store(out + whole, result);
  To::store(out + shifted, last);
}

/// The first `whole` values of a line, which fill whole vectors.
template <class L, class Formula, bool Prefetches, class In, class Out, class Coefficients>
BATCHNORM_INLINE void map_vectors(const Lines<In>& line, const OutputLines<Out>& to, Index whole,
                                  Coefficients& coefficients) {
  using To = LanesOver<L, Out>;
  const LookAhead out_ahead(line.ahead, line.length, to.stride);
  coefficients.start(0);
  for (Index i = 0; i < whole; i += L::count) {
    if constexpr (Prefetches) {
#pragma GCC unroll 8
      for (std::size_t k = 0; k < Formula::inputs; ++k) {
        const LookAhead ahead(line.ahead, line.length, line.stride[k]);
        if (!Coefficients::by_columns || k != Formula::weights) line.in.template prefetch<L>(k, i, ahead.from(i));
      }
      To::prefetch(to.out + i, out_ahead.from(i));
    }
    typename L::V result;
    map_at<L, Formula>(line.in, i, coefficients, result);
    To::store(to.out + i, result);
    coefficients.next();
  }
}

/// A whole line, at least one vector long.
template <class L, class Formula, class In, class Out, class Coefficients>
BATCHNORM_INLINE void map_line(const Lines<In>& line, const OutputLines<Out>& to, Coefficients& coefficients) {
  const Index length = line.length, rest = length % L::count, whole = rest == 0 ? length : length - rest - L::count;
  if (line.ahead == 0) {
    map_vectors<L, Formula, false>(line, to, whole, coefficients);
  } else {
    map_vectors<L, Formula, true>(line, to, whole, coefficients);
  }
  if (rest != 0) map_end<L, Formula>(line.in, to.out, length, coefficients);
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
  BATCHNORM_INLINE void start(Index) {}
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
  Index step = remainder(L::count);
  Index column = 0;

  BATCHNORM_INLINE void start(Index i) { column = remainder(i); }
  BATCHNORM_INLINE void next() {
    column += step;
    if (column >= width) column -= width;
  }
  BATCHNORM_INLINE void get(typename L::V& c, int k) const { L::load(c, values[static_cast<std::size_t>(k)] + column); }

 private:
  /// A division costs as much as several vectors: not within two rows.
  BATCHNORM_INLINE Index remainder(Index i) const {
    if (i < width) return i;
    return i - width < width ? i - width : i % width;
  }
};

/// All lines of a map.
template <class L, class Formula, class In, class Out, class Coefficients>
BATCHNORM_INLINE void map_lines(const Lines<In>& lines, const OutputLines<Out>& to, Coefficients& coefficients) {
  for (Index line = 0; line < lines.lines; ++line) {
    map_line<L, Formula>(lines.from(line), to.from(line * to.stride), coefficients);
  }
}

template <class In, class Formula, class Out>
struct MapRuns {
  using Compute = typename In::Compute;
  ChannelRuns<In> channels;
  OutputLines<Out> to;  // of the first channel
  Index out_channel_stride;
  std::array<Compute*, Formula::coefficients> coefficients;  // of each channel

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    for (Index c = 0; c < channels.channels; ++c) {
      RunCoefficients<L, Formula::coefficients> of_channel(coefficients, c);
      map_lines<L, Formula>(channels.of(c), to.from(c * out_channel_stride), of_channel);
    }
  }
};

template <class In, class Formula, class Out>
struct MapRows {
  using Compute = typename In::Compute;
  Lines<In> rows;  // without weights, a line may be several rows of `width` columns without gaps
  OutputLines<Out> to;
  std::array<Compute*, Formula::coefficients> coefficients;
  Index width;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    ColumnCoefficients<L, Formula::coefficients> columns{coefficients, width};
    map_lines<L, Formula>(rows, to, columns);
  }
};

}  // namespace batchnorm::detail
