#pragma once

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

template <class T, std::size_t Inputs>
BATCHNORM_INLINE void move_by(std::array<const T*, Inputs>& at, const std::array<const T*, Inputs>& from,
                              const std::array<Index, Inputs>& stride, Index lines, Index offset) {
#pragma GCC unroll 8
  for (std::size_t k = 0; k < Inputs; ++k) at[k] = from[k] + lines * stride[k] + offset;
}

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
