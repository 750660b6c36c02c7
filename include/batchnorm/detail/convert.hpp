#pragma once

#include <cstdint>
#include <cstring>

#include "batchnorm/detail/vectors.hpp"
#include "batchnorm/scalar.hpp"

// Vectors in memory that are narrower than those to compute with. 16-bit values are converted by integer arithmetic,
// which every target has. Where GCC does not find an instruction of AVX-512 or AVX2, it is named; Clang lets no
// template do so.

#if BATCHNORM_X86 && !defined(__clang__)
#define BATCHNORM_NAMES_INSTRUCTIONS 1
#else
#define BATCHNORM_NAMES_INSTRUCTIONS 0
#endif

namespace batchnorm::detail {

#if BATCHNORM_VECTORS

/// As many T as a vector of `Bytes` bytes of Compute has: to Compute, exactly, and back, rounded to nearest even.
template <class T, class Compute, int Bytes>
struct Conversion {
  using V = typename VectorType<Compute, Bytes>::type;
  using Raw = typename VectorType<T, Bytes / static_cast<int>(sizeof(Compute) / sizeof(T))>::type;
  static_assert(std::is_same_v<T, float> && std::is_same_v<Compute, double>);

  BATCHNORM_INLINE static void widen(V& v, const Raw& raw) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes >= 32) {
      asm("vcvtps2pd %1, %0" : "=v"(v) : "vm"(raw));
      return;
    }
#endif
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

  BATCHNORM_INLINE static void extend(Bits& bits, const Raw& raw) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      asm("vpmovzxwd %1, %0" : "=v"(bits) : "vm"(raw));
      return;
    }
#endif
    bits = __builtin_convertvector(raw, Bits);
  }

  BATCHNORM_INLINE static void truncate(Raw& raw, const Bits& bits) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      asm("vpmovdw %1, %0" : "=v"(raw) : "v"(bits));
      return;
    }
#endif
    raw = __builtin_convertvector(bits, Raw);
  }

  /// Raw as the upper halves, the lower ones 0.
  BATCHNORM_INLINE static void extend_up(Bits& bits, const Raw& raw) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      const typename VectorType<std::uint16_t, 64>::type twice = {
          0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15};
      const std::uint32_t upper = 0xaaaaaaaau;
      asm("vpermw %g1, %2, %0%{%3%}%{z%}" : "=v"(bits) : "v"(raw), "v"(twice), "Yk"(upper));
      return;
    }
#endif
    extend(bits, raw);
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
#endif
    truncate(raw, bits >> 16);
  }
};

template <class To, class From>
BATCHNORM_INLINE void copy_bits(To& to, const From& from) {
  static_assert(sizeof to == sizeof from);
  std::memcpy(&to, &from, sizeof to);
}

/// The upper half of a float.
template <int Bytes>
struct Conversion<Eigen::bfloat16, float, Bytes> : Bits16<Bytes> {
  using typename Bits16<Bytes>::V, typename Bits16<Bytes>::Bits, typename Bits16<Bytes>::Raw;

  BATCHNORM_INLINE static void widen(V& v, const Raw& raw) {
    Bits bits;
    Bits16<Bytes>::extend_up(bits, raw);
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
    const Bits quiet_nan = bits | 0x400000u;
    Bits16<Bytes>::upper_halves(raw, v != v ? quiet_nan : rounded);
  }
};

/// 5 bits of exponent, 10 of fraction.
template <int Bytes>
struct Conversion<Eigen::half, float, Bytes> : Bits16<Bytes> {
  using typename Bits16<Bytes>::V, typename Bits16<Bytes>::Bits, typename Bits16<Bytes>::Raw;

  BATCHNORM_INLINE static void widen(V& v, const Raw& raw) {
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      asm("vcvtph2ps %1, %0" : "=v"(v) : "v"(raw));
      return;
    }
#endif
    Bits half;
    Bits16<Bytes>::extend(half, raw);
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
#if BATCHNORM_NAMES_INSTRUCTIONS
    if constexpr (Bytes == 64) {
      asm("vcvtps2ph $0, %1, %0" : "=v"(raw) : "v"(v));
      return;
    }
#endif
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
    Bits16<Bytes>::truncate(raw, result | (bits >> 16 & 0x8000u));
  }
};

#endif

}  // namespace batchnorm::detail
