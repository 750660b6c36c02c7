#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "batchnorm/detail/vectors.hpp"
#include "batchnorm/scalar.hpp"

// Vectors in memory that are narrower than those to compute with. 16-bit values are converted by integer arithmetic
// where the target has no instruction for it. Where the compilers do not find one that it has, it is named.

// Whether asm takes vectors of any target: Clang's has operands of more than 16 bytes only where the whole file may use
// AVX.
#if BATCHNORM_X86 && !defined(__clang__)
#define BATCHNORM_NAMES_INSTRUCTIONS 1
#else
#define BATCHNORM_NAMES_INSTRUCTIONS 0
#endif

namespace batchnorm::detail {

#if BATCHNORM_VECTORS

/// What asm takes of a vector as one operand.
template <int Bytes>
inline constexpr int operand_bytes = BATCHNORM_NAMES_INSTRUCTIONS ? Bytes : std::min(Bytes, 16);

/// The bytes from a place on, for asm to read.
template <int Bytes>
BATCHNORM_INLINE const auto& bytes_from(const void* place) {
  return *static_cast<const char(*)[Bytes]>(place);
}

template <class To, class From>
BATCHNORM_INLINE void copy_bits(To& to, const From& from) {
  static_assert(sizeof to == sizeof from);
  std::memcpy(&to, &from, sizeof to);
}

/// As many T as a vector of `Bytes` bytes of Compute has: from memory to Compute, exactly, and back, rounded to nearest
/// even.
template <class T, class Compute, int Bytes>
struct Conversion {
  using V = typename VectorType<Compute, Bytes>::type;
  using Raw = typename VectorType<T, Bytes / static_cast<int>(sizeof(Compute) / sizeof(T))>::type;
  static_assert(std::is_same_v<T, float> && std::is_same_v<Compute, double>);

  BATCHNORM_INLINE static void load(V& v, const T* from) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes >= 32) {
      asm("vcvtps2pd %1, %0" : "=v"(v) : "m"(bytes_from<Bytes / 2>(from)));
      return;
    }
#endif
    Raw raw;
    std::memcpy(&raw, from, sizeof raw);
    v = __builtin_convertvector(raw, V);
  }
  BATCHNORM_INLINE static void round(Raw& raw, const V& v) { raw = __builtin_convertvector(v, Raw); }
};

/// Bits of 16-bit values and of floats.
template <int Bytes>
struct Bits16 {
  using V = typename VectorType<float, Bytes>::type;
  using Bits = typename VectorType<std::uint32_t, Bytes>::type;
  using Raw = typename VectorType<std::uint16_t, Bytes / 2>::type;

  BATCHNORM_INLINE static void load(Bits& bits, const void* from) {
    Raw raw;
    std::memcpy(&raw, from, sizeof raw);
    bits = __builtin_convertvector(raw, Bits);
  }

  /// As the upper halves, the lower ones 0.
  BATCHNORM_INLINE static void load_up(Bits& bits, const void* from) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      const typename VectorType<std::uint16_t, 64>::type twice = {
          0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15};
      const std::uint32_t upper = 0xaaaaaaaau;
      Raw raw;
      std::memcpy(&raw, from, sizeof raw);
      asm("vpermw %g1, %2, %0%{%3%}%{z%}" : "=v"(bits) : "v"(raw), "v"(twice), "Yk"(upper));
      return;
    }
    if constexpr (Bytes == 32) {
      constexpr char zero = -1;
      const typename VectorType<char, 32>::type up = {zero, zero, 0,    1,    zero, zero, 2,    3,    zero, zero, 4,
                                                      5,    zero, zero, 6,    7,    zero, zero, 8,    9,    zero, zero,
                                                      10,   11,   zero, zero, 12,   13,   zero, zero, 14,   15};
      asm("vbroadcasti128 %1, %0" : "=x"(bits) : "m"(bytes_from<16>(from)));
      asm("vpshufb %1, %0, %0" : "+x"(bits) : "x"(up));
      return;
    }
#endif
    load(bits, from);
    bits <<= 16;
  }

  BATCHNORM_INLINE static void upper_halves(Raw& raw, const Bits& bits) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      const typename VectorType<std::uint16_t, 64>::type odd = {1,  3,  5,  7,  9,  11, 13, 15,
                                                                17, 19, 21, 23, 25, 27, 29, 31};
      asm("vpermw %1, %2, %g0" : "=v"(raw) : "v"(bits), "v"(odd));
      return;
    }
    if constexpr (Bytes == 32) {
      const Bits lower = bits >> 16;
      asm("vextracti128 $1, %1, %0" : "=x"(raw) : "x"(lower));
      asm("vpackusdw %0, %x1, %0" : "+x"(raw) : "x"(lower));
      return;
    }
#endif
    raw = __builtin_convertvector(bits >> 16, Raw);
  }
};

/// The upper half of a float.
template <int Bytes>
struct Conversion<Eigen::bfloat16, float, Bytes> : Bits16<Bytes> {
  using typename Bits16<Bytes>::V, typename Bits16<Bytes>::Bits, typename Bits16<Bytes>::Raw;

  BATCHNORM_INLINE static void load(V& v, const Eigen::bfloat16* from) {
    Bits bits;
    Bits16<Bytes>::load_up(bits, from);
    copy_bits(v, bits);
  }

  BATCHNORM_INLINE static void round(Raw& raw, const V& v) {
    Bits bits;
    copy_bits(bits, v);
    // Half way between two values, the lowest bit that stays decides.
    Bits rounded = bits + 0x7fffu;
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      const Bits lowest = Bits{} + 0x10000u, one = Bits{} + 1u;
      // vfixupimm's table, four bits for each kind of value: the two of NaN come from v, quiet; all others stay.
      const Bits quiet_nans = Bits{} + 0x22u;
      std::uint16_t odd;
      asm("vptestmd %1, %2, %0" : "=Yk"(odd) : "v"(bits), "v"(lowest));
      asm("vpaddd %1, %0, %0%{%2%}" : "+v"(rounded) : "v"(one), "Yk"(odd));
      asm("vfixupimmps $0, %1, %2, %0" : "+v"(rounded) : "v"(quiet_nans), "v"(v));
      Bits16<Bytes>::upper_halves(raw, rounded);
      return;
    }
#endif
    rounded += bits >> 16 & 1u;
    Bits nan;  // all ones: quiet, of no sign that counts
    copy_bits(nan, v != v);
    Bits16<Bytes>::upper_halves(raw, rounded | nan);
  }
};

/// Halves, 5 bits of exponent and 10 of fraction, by integer arithmetic.
template <int Bytes>
struct HalfArithmetic : Bits16<Bytes> {
  using typename Bits16<Bytes>::V, typename Bits16<Bytes>::Bits, typename Bits16<Bytes>::Raw;

  BATCHNORM_INLINE static void load(V& v, const Eigen::half* from) {
    Bits half;
    Bits16<Bytes>::load(half, from);
    const Bits magnitude = half & 0x7fffu;
    // The exponents differ by 112, also for what is subnormal as half.
    V scaled;
    copy_bits(scaled, Bits(magnitude << 13));
    scaled *= 0x1p112f;
    Bits bits;
    copy_bits(bits, scaled);
    const Bits infinite_or_nan = bits | 0x7f800000u;
    bits = magnitude >= 0x7c00u ? infinite_or_nan : bits;
    copy_bits(v, Bits(bits | (half & 0x8000u) << 16));
  }

  BATCHNORM_INLINE static void round(Raw& raw, const V& v) {
    Bits bits;
    copy_bits(bits, v);
    const Bits magnitude = bits & 0x7fffffffu;
    const Bits normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // The sum with 0.5 has the step of a subnormal half.
    V sum;
    copy_bits(sum, magnitude);
    sum += 0.5f;
    Bits subnormal;
    copy_bits(subnormal, sum);
    subnormal -= 0x3f000000u;
    const Bits nan = (magnitude >> 13 & 0x3ffu) | 0x7e00u;
    Bits result = magnitude < 0x38800000u ? subnormal : normal;
    result = magnitude >= 0x47800000u ? Bits{} + 0x7c00u : result;
    result = magnitude > 0x7f800000u ? nan : result;
    result |= bits >> 16 & 0x8000u;
    raw = __builtin_convertvector(result, Raw);
  }
};

/// Halves by F16C, in parts as wide as asm takes.
template <int Bytes>
struct HalfInstructions {
  using V = typename VectorType<float, Bytes>::type;
  using Raw = typename VectorType<std::uint16_t, Bytes / 2>::type;
  static constexpr int part_bytes = operand_bytes<Bytes>;
  using Floats = typename VectorType<float, part_bytes>::type;
  /// As wide as the narrowest register, whose first half counts if a part is no wider.
  using Halves = typename VectorType<std::uint16_t, std::max(part_bytes / 2, 16)>::type;

  BATCHNORM_INLINE static void load(V& v, const Eigen::half* from) {
    for (int at = 0; at < Bytes; at += part_bytes) {
      Floats floats;
      asm("vcvtph2ps %1, %0" : "=v"(floats) : "m"(bytes_from<part_bytes / 2>(from + at / 4)));
      std::memcpy(reinterpret_cast<char*>(&v) + at, &floats, part_bytes);
    }
  }

  BATCHNORM_INLINE static void round(Raw& raw, const V& v) {
    for (int at = 0; at < Bytes; at += part_bytes) {
      Floats floats;
      std::memcpy(&floats, reinterpret_cast<const char*>(&v) + at, part_bytes);
      Halves halves;
      asm("vcvtps2ph $0, %1, %0" : "=v"(halves) : "v"(floats));
      std::memcpy(reinterpret_cast<char*>(&raw) + at / 2, &halves, part_bytes / 2);
    }
  }
};

template <int Bytes>
struct Conversion<Eigen::half, float, Bytes>
    : std::conditional_t<BATCHNORM_X86 && Bytes >= 32, HalfInstructions<Bytes>, HalfArithmetic<Bytes>> {};

#endif

}  // namespace batchnorm::detail
