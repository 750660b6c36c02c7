#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/lanes.hpp"

// What a kernel walks. The kernels of sum_kernels.hpp and map_kernels.hpp are the inner loops, each compiled for every
// target: one call walks many lines, reads each input once and writes the output, if there is one, once. All decisions
// are taken by their callers, reduce.hpp and map.hpp.

namespace batchnorm::detail {

/// Rows of columns, or runs: `lines` of `length` values, `stride` apart in each input.
template <class T, int Inputs>
struct Lines {
  std::array<const T*, Inputs> in;
  std::array<Index, Inputs> stride;
  Index lines;
  Index length;
  Index ahead;  // how far, in values, a kernel asks for memory in advance; 0: not at all

  /// From `offset` in a line on.
  BATCHNORM_INLINE Lines from(Index line, Index offset) const {
    Lines result = *this;
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Inputs; ++k) result.in[k] += line * stride[k] + offset;
    return result;
  }
};

/// The runs of several channels, `stride` apart in each input.
template <class T, int Inputs>
struct ChannelRuns {
  Lines<T, Inputs> runs;  // of the first channel
  std::array<Index, Inputs> stride;
  Index channels;

  BATCHNORM_INLINE Lines<T, Inputs> of(Index c) const {
    Lines<T, Inputs> result = runs;
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Inputs; ++k) result.in[k] += c * stride[k];
    return result;
  }
};

/// How far ahead of a place in a line its kernel asks for memory: further on in the line, and at its end in the next
/// one, which begins `stride` behind it.
struct LookAhead {
  Index far, length, into_next;

  LookAhead(Index ahead, Index line_length, Index stride)
      : far(ahead), length(line_length), into_next(stride == length ? far : std::min(far, length) + stride - length) {}

  BATCHNORM_INLINE Index from(Index i) const { return i + far < length ? far : into_next; }
};

/// The same value for `columns` columns, and for some behind them: `to` has room for one pack more.
template <class Compute>
void fill_columns(Compute* to, Index columns, const Compute& value) {
  using L = Lanes<Compute, Compute, has_vectors<Compute> ? 16 : 0>;
  typename L::V v;
  L::fill(v, value);
  for (Index j = 0; j < columns; j += L::count) L::store(to + j, v);
}

/// The value of each channel for each of its `inner` columns.
template <class Compute>
void fill_channels(Compute* to, Index inner, const Compute* values, Index channels) {
  for (Index c = 0; c < channels; ++c) fill_columns(to + c * inner, inner, values[c]);
}

/// Behind the last column one pack more, where the row begins again.
template <class Compute>
void repeat_columns(Compute* columns, Index count) {
  for (Index j = 0; j < max_lanes; ++j) columns[count + j] = columns[j];
}

}  // namespace batchnorm::detail
