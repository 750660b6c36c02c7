#pragma once

#include <algorithm>
#include <array>
#include <tuple>

#include "batchnorm/detail/bit_lanes.hpp"
#include "batchnorm/detail/grid.hpp"
#include "batchnorm/detail/inputs.hpp"
#include "batchnorm/detail/lanes.hpp"

// What a kernel walks. The kernels of sum_rows.hpp, sum_runs.hpp, map_kernels.hpp and map_strips.hpp are the inner
// loops, each compiled for every target that it runs on: one call walks many lines, reads each input once and writes
// the output, if there is one, once. What is walked is decided by their callers, reduce.hpp and map.hpp.

namespace batchnorm::detail {

template <class T>
using PlaceOf = std::conditional_t<std::is_same_v<T, Bit>, BitPlace<const std::uint8_t>, const T*>;

/// The vector at a place, and asking for one that lies further on.
template <class L, class T>
BATCHNORM_INLINE void load_at(typename L::V& v, const T* at) {
  LanesOver<L, T>::load(v, at);
}
template <class L>
BATCHNORM_INLINE void load_at(typename L::V& v, const BitPlace<const std::uint8_t>& at) {
  load_bits<L>(v, at);
}
template <class L, class T>
BATCHNORM_INLINE void prefetch_at(const T* at, Index ahead) {
  LanesOver<L, T>::prefetch(at, ahead);
}
template <class L>
BATCHNORM_INLINE void prefetch_at(const BitPlace<const std::uint8_t>&, Index) {}

/// A place in each input.
template <class In>
class Pointers;
template <class... T>
class Pointers<Inputs<T...>> {
 public:
  using In = Inputs<T...>;

  /// Value `offset` behind the beginning of a channel's run.
  Pointers(const In& in, Index outer, Index channel, Index offset)
      : at_(std::apply(
            [&](const auto&... view) {
              return std::tuple<PlaceOf<T>...>(
                  (view.data + (outer * view.outer_stride + channel * view.channel_stride + offset))...);
            },
            in.views)) {}

  template <std::size_t k>
  BATCHNORM_INLINE const auto& get() const {
    return std::get<k>(at_);
  }
  template <std::size_t k>
  BATCHNORM_INLINE void advance(Index by) {
    std::get<k>(at_) += by;
  }

  /// The places `by` values behind these.
  BATCHNORM_INLINE Pointers behind(Index by) const {
    Pointers result = *this;
    for_each_index<In::count>([&](auto k) BATCHNORM_INLINE_LAMBDA { result.template advance<k>(by); });
    return result;
  }

  BATCHNORM_INLINE void hold_pointers() {
    for_each_index<In::count>([&](auto k) BATCHNORM_INLINE_LAMBDA {
      if constexpr (std::is_pointer_v<std::tuple_element_t<k, decltype(at_)>>) hold(std::get<k>(at_));
    });
  }

  /// The vector `offset` values further on.
  template <class L, std::size_t k>
  BATCHNORM_INLINE void load(typename L::V& v, Index offset) const {
    load_at<L>(v, get<k>() + offset);
  }
  /// All lanes the value `offset` values further on.
  template <class L, std::size_t k>
  BATCHNORM_INLINE void fill(typename L::V& v, Index offset) const {
    L::fill(v, static_cast<typename L::Compute>(get<k>()[offset]));
  }
  template <class L, std::size_t k>
  BATCHNORM_INLINE void prefetch(Index offset, Index ahead) const {
    prefetch_at<L>(get<k>() + offset, ahead);
  }
  /// For the `vector`-th of vectors side by side, the first of which is at `offset`: once for 64 bytes, not for each.
  template <class L, std::size_t k>
  BATCHNORM_INLINE void prefetch_strip(int vector, Index offset, Index ahead) const {
    const Index before = vector * L::count;
    if (before * value_bytes(get<k>()) % pack_bytes == 0) prefetch<L, k>(offset + before, ahead);
  }

 private:
  template <class P>
  static constexpr Index value_bytes(const P*) {
    return sizeof(P);
  }
  static constexpr Index value_bytes(const BitPlace<const std::uint8_t>&) { return 0; }

  std::tuple<PlaceOf<T>...> at_;
};

/// A number for each input.
template <class In>
using ForEach = std::array<Index, In::count>;

/// Rows of columns, or runs: `lines` of `length` values, `stride` apart in each input.
template <class In>
struct Lines {
  Pointers<In> in;
  ForEach<In> stride;
  Index lines;
  Index length;
  Index ahead;  // how far, in values, a kernel asks for memory in advance; 0: not at all

  BATCHNORM_INLINE Pointers<In> place(Index line, Index offset) const {
    Pointers<In> result = in;
    for_each_index<In::count>([&](auto k)
                                  BATCHNORM_INLINE_LAMBDA { result.template advance<k>(line * stride[k] + offset); });
    return result;
  }
  /// Of the first input.
  BATCHNORM_INLINE bool has_gaps() const { return stride[0] != length; }
  /// Of the k-th input.
  template <std::size_t k>
  auto value(Index line, Index i) const {
    return static_cast<typename In::Compute>(in.template get<k>()[line * stride[k] + i]);
  }
  BATCHNORM_INLINE Lines from(Index line) const { return {place(line, 0), stride, lines, length, ahead}; }
};

/// `lines` of `length` values from a place on, `step` rows of the tensor apart.
template <class In>
Lines<In> lines_at(const In& in, const Pointers<In>& place, Index lines, Index length, Index ahead, Index step = 1) {
  return {place, in.map([&](const auto& view) { return step * view.outer_stride; }), lines, length, ahead};
}

/// How far ahead of a place in a line its kernel asks for memory: further on in the line, and at its end in the next
/// one, which begins `stride` behind it.
struct LookAhead {
  Index far, length, into_next;

  LookAhead(Index ahead, Index line_length, Index stride)
      : far(ahead), length(line_length), into_next(stride == length ? far : std::min(far, length) + stride - length) {}

  BATCHNORM_INLINE Index from(Index i) const { return i + far < length ? far : into_next; }
};

/// The runs of several channels, `stride` apart in each input.
template <class In>
struct ChannelRuns {
  Lines<In> runs;  // of the first channel
  ForEach<In> stride;
  Index channels;
  ForEach<In> across, channel_step;  // values that follow one another in memory: of all channels, or of one at a time

  /// Behind a channel's only line comes the next channel.
  ChannelRuns(const In& in, const Lines<In>& of_first, Index count)
      : runs(of_first), stride(in.map([](const auto& view) { return view.channel_stride; })), channels(count) {
    if (runs.lines == 1) runs.stride = stride;
    for (std::size_t k = 0; k < In::count; ++k) {
      const bool dense = runs.lines > 1 && stride[k] == runs.length;  // weights have one run for all channels
      channel_step[k] = dense ? runs.length : 0;
      across[k] = dense ? channels * runs.length : runs.length;
    }
  }

  BATCHNORM_INLINE Lines<In> of(Index c) const {
    Lines<In> result = runs;
    for_each_index<In::count>([&](auto k) BATCHNORM_INLINE_LAMBDA { result.in.template advance<k>(c * stride[k]); });
    return result;
  }

  /// How far ahead of value i of channel c to ask for the k-th input, where the first runs of all channels come before
  /// the second ones.
  BATCHNORM_INLINE Index ahead_across(std::size_t k, Index c, Index i) const {
    return LookAhead(runs.ahead, across[k], runs.stride[k]).from(c * channel_step[k] + i);
  }
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

/// Lets a row of `count` columns begin again behind its last one, so that it stands there `repeats` times, and the
/// first pack once more.
template <class Compute>
void repeat_columns(Compute* columns, Index count, Index repeats) {
  const Index all = repeats * count + max_lanes;
  for (Index done = count; done < all; done = std::min(2 * done, all)) {
    std::copy_n(columns, std::min(done, all - done), columns + done);
  }
}

}  // namespace batchnorm::detail
