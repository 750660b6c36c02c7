#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "batchnorm/detail/lanes.hpp"
#include "batchnorm/shape.hpp"

// Tensors of one bit for each value. Kernels read a bit as 1 or 0, and write whether a value is 1. Threads may write
// lines that end and begin within one byte.

namespace batchnorm::detail {

/// The scalar of such a tensor. There is no array of it: where others have a pointer, it has a place among bytes.
struct Bit {};

/// At least as many bits as kernels read or write at a time, the first one lowest.
using BitWord = std::uint32_t;
inline constexpr int byte_bits = 8;

template <class Byte>
class BitPlace {
 public:
  BitPlace(Byte* bytes, Index bit) : bytes_(bytes), bit_(static_cast<std::size_t>(bit)) {}

  BATCHNORM_INLINE BitPlace& operator+=(Index by) {
    bit_ += static_cast<std::size_t>(by);
    return *this;
  }
  BATCHNORM_INLINE BitPlace operator+(Index by) const {
    BitPlace result = *this;
    return result += by;
  }

  BATCHNORM_INLINE Byte* byte() const { return bytes_ + bit_ / byte_bits; }
  BATCHNORM_INLINE int place_in_byte() const { return static_cast<int>(bit_ % byte_bits); }

  /// From here on 25 bits at least.
  BATCHNORM_INLINE BitWord next() const {
    const Byte* const from = byte();
    const BitWord word = BitWord(from[0]) | BitWord(from[1]) << 8 | BitWord(from[2]) << 16 | BitWord(from[3]) << 24;
    return word >> place_in_byte();
  }

 private:
  Byte* bytes_;
  std::size_t bit_;
};

/// In the order of a dense tensor.
template <class Byte>
struct BitView {
  BitPlace<Byte> data;
  Shape shape;
  Index outer_stride, channel_stride;

  BitView(Byte* bytes, const Shape& of)
      : data(bytes, 0), shape(of), outer_stride(of.channels * of.inner), channel_stride(of.inner) {}
  static constexpr bool dense_rows() { return true; }
  static constexpr bool dense_channels() { return true; }
};
template <>
struct View<const Bit> : BitView<const std::uint8_t> {
  using BitView::BitView;
};
template <>
struct View<Bit> : BitView<std::uint8_t> {
  using BitView::BitView;
};

template <class T>
bool lies_at(const View<T>& view, const void* memory) {
  return static_cast<const void*>(view.data) == memory;
}
inline bool lies_at(const View<const Bit>&, const void*) { return false; }

/// The memory of such a tensor.
class Bits {
 public:
  /// Room for a tensor; what was there is lost.
  View<Bit> reserve(const Shape& shape) {
    constexpr Index read_behind = sizeof(BitWord);
    const auto bytes = static_cast<std::size_t>(ceil_div(shape.size(), byte_bits) + read_behind);
    if (bytes_.size() < bytes) bytes_.resize(bytes);
    return {bytes_.data(), shape};
  }
  /// As it was written.
  View<const Bit> view(const Shape& shape) const { return {bytes_.data(), shape}; }
  Index bytes() const { return static_cast<Index>(bytes_.size()); }

 private:
  std::vector<std::uint8_t> bytes_;
};

/// Sets those bits of a byte that are `own`; other threads may set others.
inline void set_own_bits(std::uint8_t& byte, unsigned bits, unsigned own) {
#if defined(__GNUC__)
  const unsigned now = __atomic_load_n(&byte, __ATOMIC_RELAXED);
  __atomic_fetch_xor(&byte, static_cast<std::uint8_t>((now ^ bits) & own), __ATOMIC_RELAXED);
#else
  std::atomic_ref<std::uint8_t> shared(byte);
  shared.fetch_xor(static_cast<std::uint8_t>((shared.load(std::memory_order_relaxed) ^ bits) & own),
                   std::memory_order_relaxed);
#endif
}

/// Which ends of a line may share a byte with lines of other threads.
struct SharedEnds {
  bool begin, end;
};

/// Writes a line from its beginning to its end. Where an end is not shared, the line beside it is this thread's: the
/// one before has been written, the one behind will be.
class BitWriter {
 public:
  BitWriter() = default;
  BATCHNORM_INLINE BitWriter(const BitPlace<std::uint8_t>& to, SharedEnds shared)
      : to_(to.byte()), end_(to.place_in_byte()), shares_end_(shared.end) {
    if (shared.begin) {
      begin_ = end_;
    } else {
      waiting_ = *to_ & ((1u << end_) - 1);
    }
  }

  template <int count>
  BATCHNORM_INLINE void append(BitWord bits) {
    if (count % byte_bits != 0 || begin_ != 0) return append(bits, count);
    waiting_ |= bits << end_;
    for (int k = 0; k < count / byte_bits; ++k) to_[k] = static_cast<std::uint8_t>(waiting_ >> k * byte_bits);
    to_ += count / byte_bits;
    waiting_ >>= count;
  }
  /// The lowest `count` of `bits`, at most half a word.
  BATCHNORM_INLINE void append(BitWord bits, int count) {
    waiting_ |= (bits & ((1u << count) - 1)) << end_;
    end_ += count;
    while (end_ >= byte_bits) {
      if (begin_ == 0) {
        *to_ = static_cast<std::uint8_t>(waiting_);
      } else {
        set_own_bits(*to_, waiting_, 0xffu << begin_);
      }
      ++to_;
      begin_ = 0;
      waiting_ >>= byte_bits;
      end_ -= byte_bits;
    }
  }
  BATCHNORM_INLINE void finish() {
    if (begin_ == end_) return;
    if (shares_end_ || begin_ != 0) {
      set_own_bits(*to_, waiting_, ((1u << end_) - 1) & (0xffu << begin_));
    } else {
      *to_ = static_cast<std::uint8_t>(waiting_);
    }
  }

 private:
  std::uint8_t* to_ = nullptr;
  BitWord waiting_ = 0;      // from the lowest bit of *to_ on
  int begin_ = 0, end_ = 0;  // which of them may be written to *to_ without regard to other threads
  bool shares_end_ = false;
};

}  // namespace batchnorm::detail
