#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "batchnorm/activation.hpp"
#include "batchnorm/detail/bits.hpp"
#include "batchnorm/detail/convert.hpp"
#include "batchnorm/detail/lanes.hpp"

// Bits to vectors of 1 and 0, and back.

namespace batchnorm::detail {

#if BATCHNORM_VECTORS
/// In lane k the k-th bit.
template <class Int>
inline constexpr auto lane_bits = [] {
  std::array<Int, max_lanes> bits{};
  for (std::size_t k = 0; k < bits.size(); ++k) bits[k] = Int(1) << k;
  return bits;
}();

/// All lanes the same word.
template <class L, class Ints, class Int>
BATCHNORM_INLINE void fill_bits(Ints& to, Int word) {
  if constexpr (sizeof to <= 16 || !compiler_splits_vectors) {
    to = word - Ints{};
  } else {
    typename L::Compute same;
    typename L::V v;
    copy_bits(same, word);
    L::fill(v, same);
    copy_bits(to, v);
  }
}

template <class L>
BATCHNORM_INLINE void load_bits(typename L::V& v, BitWord word) {
  typename L::V one, zero;
  set_one(one);
  L::clear(zero);
#if BATCHNORM_NAMES_INSTRUCTIONS
  if constexpr (L::bytes == 64) {
    if constexpr (sizeof(typename L::Compute) == 4) {
      asm("kmovd %1, %%k1\n\tvmovaps %2, %0%{%%k1%}%{z%}" : "=v"(v) : "r"(word), "v"(one) : "k1");
    } else {
      asm("kmovd %1, %%k1\n\tvmovapd %2, %0%{%%k1%}%{z%}" : "=v"(v) : "r"(word), "v"(one) : "k1");
    }
    return;
  }
#endif
  using Int = typename L::Int;
  typename VectorType<Int, L::bytes>::type bits, of_lane;
  fill_bits<L>(bits, static_cast<Int>(word));
  std::memcpy(&of_lane, lane_bits<Int>.data(), sizeof of_lane);
  v = (bits & of_lane) != 0 ? one : zero;
}

/// The lanes of a comparison as bits.
template <class L, class Ints>
BATCHNORM_INLINE BitWord lanes_as_bits(const Ints& mask) {
#if BATCHNORM_NAMES_INSTRUCTIONS
  BitWord bits;
  if constexpr (sizeof(typename L::Compute) == 4) {
    asm("%vmovmskps %1, %0" : "=r"(bits) : "x"(mask));
  } else {
    asm("%vmovmskpd %1, %0" : "=r"(bits) : "x"(mask));
  }
  return bits;
#elif BATCHNORM_X86
  const auto narrow = __builtin_convertvector(mask, typename VectorType<char, L::count>::type);
  typename VectorType<char, 16>::type bytes{};
  std::memcpy(&bytes, &narrow, sizeof narrow);
  return static_cast<BitWord>(__builtin_ia32_pmovmskb128(bytes));
#else
  BitWord bits = 0;
  for (int k = 0; k < L::count; ++k) bits |= static_cast<BitWord>(mask[k] & 1) << k;
  return bits;
#endif
}

template <class L>
BATCHNORM_INLINE BitWord ones_of(const typename L::V& v) {
  typename L::V one;
  set_one(one);
#if BATCHNORM_NAMES_INSTRUCTIONS
  if constexpr (L::bytes == 64) {
    BitWord bits;
    if constexpr (sizeof(typename L::Compute) == 4) {
      asm("vcmpeqps %2, %1, %%k1\n\tkmovw %%k1, %0" : "=r"(bits) : "v"(v), "v"(one) : "k1");
    } else {
      asm("vcmpeqpd %2, %1, %%k1\n\tkmovb %%k1, %0" : "=r"(bits) : "v"(v), "v"(one) : "k1");
    }
    return bits;
  }
#endif
  return lanes_as_bits<L>(v == one);
}
#endif

/// 1 where a bit is set, else 0.
template <class L>
BATCHNORM_INLINE void load_bits(typename L::V& v, const BitPlace<const std::uint8_t>& at) {
  using Compute = typename L::Compute;
  if constexpr (L::bytes == 0) {
    v = (at.next() & 1u) != 0 ? Compute(1) : Compute(0);
  } else {
#if BATCHNORM_VECTORS
    load_bits<L>(v, at.next());
#endif
  }
}

/// Bit k: whether lane k is 1.
template <class L>
BATCHNORM_INLINE BitWord bits_of(const typename L::V& v) {
  if constexpr (L::bytes == 0) {
    return v == typename L::Compute(1) ? 1 : 0;
  } else {
#if BATCHNORM_VECTORS
    return ones_of<L>(v);
#endif
  }
}

}  // namespace batchnorm::detail
