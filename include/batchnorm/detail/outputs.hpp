#pragma once

#include <cstdint>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/inputs.hpp"
#include "batchnorm/detail/lines.hpp"

// What a map writes: a tensor, or two at once. Lines of bits are written from their beginning to their end.

namespace batchnorm::detail {

template <class First, class Second>
struct TwoOutputs {
  View<First> first;
  View<Second> second;

  bool dense_rows() const { return first.dense_rows() && second.dense_rows(); }
  bool dense_channels() const { return first.dense_channels() && second.dense_channels(); }
};

template <class First, class Second>
TwoOutputs(const View<First>&, const View<Second>&) -> TwoOutputs<First, Second>;

template <class Out>
inline constexpr Index tensors_of = 1;
template <class First, class Second>
inline constexpr Index tensors_of<TwoOutputs<First, Second>> = tensors_among<First, Second>;

/// Whether an output may go past the caches.
template <class Out>
struct Streams {
  bool output;
  bool any() const { return output; }
};
template <class First, class Second>
struct Streams<TwoOutputs<First, Second>> {
  bool first, second;
  bool any() const { return first || second; }
};

/// How many values an output lies behind a cache line's beginning.
template <class T>
Index lane_of(const View<T>& out) {
  return lane_of(static_cast<const T*>(out.data));
}
template <class First, class Second>
Index lane_of(const TwoOutputs<First, Second>& out) {
  return lane_of(out.first);
}

/// A place in an output, from where lines are a stride apart.
template <class Out>
class OutputLines;

template <class T>
class OutputLines<View<T>> {
 public:
  template <class V>
  using Result = V;
  /// Whether values must be written in the order of memory.
  static constexpr bool in_order = false;

  /// Lines of `length` values from value `offset` behind the beginning of a channel's run.
  OutputLines(const View<T>& out, Index outer, Index channel, Index offset, Index length, Streams<View<T>> streams)
      : to_(out.data + outer * out.outer_stride + channel * out.channel_stride + offset),
        stride_(out.outer_stride),
        channel_stride_(out.channel_stride),
        streams_(streams.output && length * static_cast<Index>(sizeof(T)) >= min_streamed_line_bytes) {}

  /// Behind a channel's only line comes the next channel.
  void step_by_channels() { stride_ = channel_stride_; }
  bool streams() const { return streams_; }

  BATCHNORM_INLINE OutputLines channel(Index c, Index) const { return from(c * channel_stride_); }
  BATCHNORM_INLINE OutputLines line(Index k) const { return from(k * stride_); }

  // ---- In a line.

  /// Values in front of the first vector that is aligned.
  template <class L>
  BATCHNORM_INLINE Index before_aligned() const {
    return LanesOver<L, T>::before_aligned(to_);
  }
  /// As in Lanes, at value i.
  template <class L>
  BATCHNORM_INLINE Index before_line(Index i) const {
    return LanesOver<L, T>::before_line(to_ + i);
  }
  template <class L>
  BATCHNORM_INLINE Index behind_line(Index i) const {
    return LanesOver<L, T>::behind_line(to_ + i);
  }
  template <class L>
  BATCHNORM_INLINE bool begins_line(Index i) const {
    return LanesOver<L, T>::before_aligned(to_ + i) == 0 && behind_line<L>(i) == 0;
  }
  /// Vectors stream from value i on, if it begins a cache line.
  template <class L>
  BATCHNORM_INLINE void begin_at(Index i) {
    streams_ = streams_ && begins_line<L>(i);
  }
  BATCHNORM_INLINE void hold_pointers() { hold(to_); }
  /// From value i on, how far ahead to ask for memory.
  BATCHNORM_INLINE void look_ahead(Index ahead, Index length, Index i) {
    ahead_ = LookAhead(ahead, length, stride_).from(i);
  }
  /// The vector from value i on.
  template <class L>
  BATCHNORM_INLINE void store(Index i, const typename L::V& v) {
    LanesOver<L, T>::store(to_ + i, v);
  }
  /// The same, where the next vector begins behind its first lanes.
  template <class L>
  BATCHNORM_INLINE void store_first(Index i, const typename L::V& v, Index) {
    store<L>(i, v);
  }
  /// The pack from value i on.
  template <class L>
  BATCHNORM_INLINE void store_ahead(Index i, const typename L::V (&v)[L::per_pack]) {
    if (streams_) {
      for_each_index<L::per_pack>(
          [&](auto k) BATCHNORM_INLINE_LAMBDA { LanesOver<L, T>::stream(to_ + i + Index(k) * L::count, v[k]); });
    } else {
      LanesOver<L, T>::prefetch(to_ + i, ahead_);
      for_each_index<L::per_pack>([&](auto k) BATCHNORM_INLINE_LAMBDA { store<L>(i + Index(k) * L::count, v[k]); });
    }
  }
  BATCHNORM_INLINE void end() {}

 private:
  BATCHNORM_INLINE OutputLines from(Index offset) const {
    OutputLines result = *this;
    result.to_ += offset;
    return result;
  }

  T* to_;
  Index stride_, channel_stride_;
  bool streams_;
  Index ahead_ = 0;
};

template <>
class OutputLines<View<Bit>> {
 public:
  static constexpr bool in_order = true;

  OutputLines(const View<Bit>& out, Index outer, Index channel, Index offset, Index length, Streams<View<Bit>>)
      : to_(out.data + (outer * out.outer_stride + channel * out.channel_stride + offset)),
        stride_(out.outer_stride),
        channel_stride_(out.channel_stride),
        fills_bytes_(offset == 0 && length == out.shape.inner && length >= byte_bits) {}

  void step_by_channels() { stride_ = channel_stride_; }
  static constexpr bool streams() { return false; }

  BATCHNORM_INLINE OutputLines channel(Index c, Index channels) const {
    OutputLines result = *this;
    result.to_ += c * channel_stride_;
    // One thread writes whole runs of neighboring channels one after another, and no more than two of them meet in a
    // byte.
    if (fills_bytes_) result.shared_ = {c == 0, c == channels - 1};
    return result;
  }
  BATCHNORM_INLINE OutputLines line(Index k) const {
    OutputLines result = *this;
    result.writer_ = BitWriter(to_ + k * stride_, shared_);
    return result;
  }

  template <class L>
  BATCHNORM_INLINE void begin_at(Index) {}
  BATCHNORM_INLINE void hold_pointers() {}
  BATCHNORM_INLINE void look_ahead(Index, Index, Index) {}
  template <class L>
  BATCHNORM_INLINE void store(Index, const typename L::V& v) {
    writer_.append<L::count>(bits_of<L>(v));
  }
  template <class L>
  BATCHNORM_INLINE void store_first(Index, const typename L::V& v, Index lanes) {
    writer_.append(bits_of<L>(v), static_cast<int>(lanes));
  }
  template <class L>
  BATCHNORM_INLINE void store_ahead(Index i, const typename L::V (&v)[L::per_pack]) {
    for_each_index<L::per_pack>([&](auto k) BATCHNORM_INLINE_LAMBDA { store<L>(i + Index(k) * L::count, v[k]); });
  }
  BATCHNORM_INLINE void end() { writer_.finish(); }

 private:
  BitPlace<std::uint8_t> to_;
  Index stride_, channel_stride_;
  bool fills_bytes_;
  SharedEnds shared_{true, true};
  BitWriter writer_;
};

template <class First, class Second>
class OutputLines<TwoOutputs<First, Second>> {
  static_assert(!std::is_same_v<First, Bit>, "The first output chooses where vectors begin.");

 public:
  template <class V>
  using Result = TwoResults<V>;
  using Out = TwoOutputs<First, Second>;
  static constexpr bool in_order = OutputLines<View<First>>::in_order || OutputLines<View<Second>>::in_order;

  OutputLines(const Out& out, Index outer, Index channel, Index offset, Index length, Streams<Out> streams)
      : first_(out.first, outer, channel, offset, length, {streams.first}),
        second_(out.second, outer, channel, offset, length, {streams.second}) {}

  void step_by_channels() {
    first_.step_by_channels();
    second_.step_by_channels();
  }
  bool streams() const { return first_.streams() || second_.streams(); }

  BATCHNORM_INLINE OutputLines channel(Index c, Index channels) const {
    return {first_.channel(c, channels), second_.channel(c, channels)};
  }
  BATCHNORM_INLINE OutputLines line(Index k) const { return {first_.line(k), second_.line(k)}; }

  template <class L>
  BATCHNORM_INLINE Index before_aligned() const {
    return first_.template before_aligned<L>();
  }
  /// Of the second output, if it is narrower: whole lines of it are whole ones of both, unless they begin elsewhere.
  template <class L>
  BATCHNORM_INLINE Index before_line(Index i) const {
    if constexpr (second_is_narrower) {
      const Index before = second_.template before_line<L>(i);
      if (suits_first<L>(before, i + before)) return before;
    }
    return first_.template before_line<L>(i);
  }
  template <class L>
  BATCHNORM_INLINE Index behind_line(Index i) const {
    if constexpr (second_is_narrower) {
      const Index behind = second_.template behind_line<L>(i);
      if (suits_first<L>(behind, i - behind)) return behind;
    }
    return first_.template behind_line<L>(i);
  }
  template <class L>
  BATCHNORM_INLINE void begin_at(Index i) {
    first_.template begin_at<L>(i);
    second_.template begin_at<L>(i);
  }
  BATCHNORM_INLINE void hold_pointers() {
    first_.hold_pointers();
    second_.hold_pointers();
  }
  BATCHNORM_INLINE void look_ahead(Index ahead, Index length, Index i) {
    first_.look_ahead(ahead, length, i);
    second_.look_ahead(ahead, length, i);
  }
  template <class L>
  BATCHNORM_INLINE void store(Index i, const TwoResults<typename L::V>& v) {
    first_.template store<L>(i, v.first);
    second_.template store<L>(i, v.second);
  }
  template <class L>
  BATCHNORM_INLINE void store_first(Index i, const TwoResults<typename L::V>& v, Index lanes) {
    first_.template store_first<L>(i, v.first, lanes);
    second_.template store_first<L>(i, v.second, lanes);
  }
  template <class L>
  BATCHNORM_INLINE void store_ahead(Index i, const TwoResults<typename L::V> (&v)[L::per_pack]) {
    typename L::V of_first[L::per_pack], of_second[L::per_pack];
    for_each_index<L::per_pack>([&](auto k) BATCHNORM_INLINE_LAMBDA {
      of_first[k] = v[k].first;
      of_second[k] = v[k].second;
    });
    first_.template store_ahead<L>(i, of_first);
    second_.template store_ahead<L>(i, of_second);
  }
  BATCHNORM_INLINE void end() { second_.end(); }

 private:
  OutputLines(const OutputLines<View<First>>& first, const OutputLines<View<Second>>& second)
      : first_(first), second_(second) {}

  static constexpr bool second_is_narrower = !std::is_same_v<Second, Bit> && sizeof(Second) < sizeof(First);
  /// Whether so many values fill vectors, and the place they lead to begins a line of the first output.
  template <class L>
  BATCHNORM_INLINE bool suits_first(Index values, Index place) const {
    return values % L::count == 0 && (!first_.streams() || first_.template begins_line<L>(place));
  }

  OutputLines<View<First>> first_;
  OutputLines<View<Second>> second_;
};

}  // namespace batchnorm::detail
