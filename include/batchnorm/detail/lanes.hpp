#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "batchnorm/detail/convert.hpp"
#include "batchnorm/scalar.hpp"

// How a kernel holds values: one vector register's worth, by the compilers' vector extension, or a single value.
// Vectors never cross a call by value: a function without the target's attribute would pass them differently.

namespace batchnorm::detail {

/// GCC takes a vector made of scalars apart, lane by lane, before it knows the target that a kernel is inlined into.
#if defined(__clang__)
inline constexpr bool compiler_splits_vectors = false;
#else
inline constexpr bool compiler_splits_vectors = true;
#endif

inline Index ceil_div(Index a, Index b) {
  return static_cast<Index>(static_cast<std::size_t>(a + b - 1) / static_cast<std::size_t>(b));
}
inline Index round_up(Index a, Index unit) { return ceil_div(a, unit) * unit; }

/// Bytes of the widest register. Tiles cover as many bytes on every target.
inline constexpr int pack_bytes = 64;

inline constexpr int max_lanes = pack_bytes / 4;

/// Values in the widest register.
template <class Compute>
inline constexpr Index pack_lanes = std::max<Index>(pack_bytes / static_cast<Index>(sizeof(Compute)), 1);

/// `max_lanes` zeros, then as many ones: a window of it masks the first lanes of a vector.
template <class Int>
inline constexpr auto lane_masks = [] {
  std::array<Int, 2 * max_lanes> masks{};
  for (std::size_t k = max_lanes; k < masks.size(); ++k) masks[k] = Int(-1);
  return masks;
}();

/// Whether kernels compute with vectors of this type at all.
template <class Compute>
inline constexpr bool has_vectors = BATCHNORM_VECTORS &&
                                    (std::is_same_v<Compute, float> || std::is_same_v<Compute, double>);

/// How many values a place lies behind a cache line's beginning. Places that agree in it are aligned alike.
template <class T>
Index lane_of(const T* place) {
  const auto address = reinterpret_cast<std::uintptr_t>(place);
  return has_vectors<ComputeOf<T>> ? static_cast<Index>(address / sizeof(T)) % pack_lanes<ComputeOf<T>> : 0;
}

/// A vector of `Bytes` bytes to compute with, over an array of T; Bytes 0: one plain value.
template <class T, class Compute_, int Bytes>
struct Lanes {
  using Scalar = T;
  using Compute = Compute_;
  static constexpr int bytes = Bytes;
  static constexpr int count = Bytes == 0 ? 1 : Bytes / static_cast<int>(sizeof(Compute));
  using V = typename VectorType<Compute, Bytes>::type;
  /// As wide as a value.
  using Int = std::conditional_t<sizeof(Compute) == 4, std::int32_t, std::int64_t>;
  /// The same lanes over an array of Compute.
  using Computed = Lanes<Compute, Compute, Bytes>;
  /// Vectors in a pack: as many values as the widest register holds.
  static constexpr int per_pack = Bytes == 0 ? 1 : pack_bytes / Bytes;

  BATCHNORM_INLINE static void load(V& v, const T* from) {
    if constexpr (Bytes == 0) {
      v = static_cast<Compute>(*from);
    } else if constexpr (std::is_same_v<T, Compute>) {
      std::memcpy(&v, from, sizeof v);
    } else {
#if BATCHNORM_VECTORS
      Conversion<T, Compute, Bytes>::load(v, from);
#endif
    }
  }

  BATCHNORM_INLINE static void store(T* to, const V& v) {
    if constexpr (Bytes == 0) {
      *to = static_cast<T>(v);
    } else {
      as_in_memory(
          v, [&](const auto& raw) BATCHNORM_INLINE_LAMBDA { std::memcpy(static_cast<void*>(to), &raw, sizeof raw); });
    }
  }

  /// Values in front of the first place from `at` on where a vector is aligned: it meets no more cache lines than it
  /// must, and stream() may write it.
  BATCHNORM_INLINE static Index before_aligned(const T* at) {
    constexpr auto vector_bytes = static_cast<std::uintptr_t>(count) * sizeof(T);
    const std::uintptr_t begun = reinterpret_cast<std::uintptr_t>(at) % vector_bytes;
    return begun == 0 ? 0 : count - static_cast<Index>(begun / sizeof(T));
  }

  /// Where a vector is aligned: the values between it and the beginning of its cache line, and those to the next one's,
  /// 0 at a beginning.
  BATCHNORM_INLINE static Index behind_line(const T* at) {
    constexpr bool fills_line = static_cast<std::size_t>(count) * sizeof(T) == pack_bytes;
    return fills_line ? 0 : static_cast<Index>(reinterpret_cast<std::uintptr_t>(at) % pack_bytes / sizeof(T));
  }
  BATCHNORM_INLINE static Index before_line(const T* at) {
    const Index behind = behind_line(at);
    return behind == 0 ? 0 : pack_bytes / static_cast<Index>(sizeof(T)) - behind;
  }

  /// As store, but past the caches: what is there need not be read before. end_streaming() comes behind the last one.
  BATCHNORM_INLINE static void stream(T* to, const V& v) {
    if constexpr (!BATCHNORM_X86 || Bytes == 0 || count * sizeof(T) < 16) {
      store(to, v);
    } else {
      as_in_memory(v, [&](const auto& raw) BATCHNORM_INLINE_LAMBDA { stream_raw(to, raw); });
    }
  }

  /// Asks for the vector `ahead` values further on, which need not exist.
  BATCHNORM_INLINE static void prefetch([[maybe_unused]] const T* from, [[maybe_unused]] Index ahead) {
#if BATCHNORM_VECTORS
    const auto address = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead) * sizeof(T);
    if (Bytes != 0) __builtin_prefetch(reinterpret_cast<const void*>(address));
#endif
  }

  BATCHNORM_INLINE static void square_root(V& v) {
#if BATCHNORM_X86
    if constexpr (std::is_same_v<Compute, double> && sizeof(V) == 16) {
      asm("sqrtpd %1, %0" : "=x"(v) : "x"(v));
      return;
    }
    if constexpr (std::is_same_v<Compute, double> && sizeof(V) == 32) {
      typename VectorType<Compute, operand_bytes<32>>::type parts[32 / operand_bytes<32>];
      std::memcpy(parts, &v, sizeof v);
      for (auto& part : parts) asm("vsqrtpd %1, %0" : "=x"(part) : "x"(part));
      std::memcpy(&v, parts, sizeof v);
      return;
    }
#endif
    for (int k = 0; k < count; ++k) v[k] = std::sqrt(v[k]);
  }

  BATCHNORM_INLINE static void clear(V& v) {
    if constexpr (Bytes == 0) {
      v = Compute(0);
    } else {
      v = V{};
    }
  }

  /// All lanes the same.
  BATCHNORM_INLINE static void fill(V& v, const Compute& value) {
    if constexpr (Bytes == 0) {
      v = value;
    } else if constexpr (sizeof(V) <= 16 || !compiler_splits_vectors) {
      v = value - V{};  // keeps the sign of -0, where adding zero would not
    } else {
#if BATCHNORM_X86 && !defined(__clang__)
      if constexpr (sizeof(Compute) == 4) asm("vbroadcastss %1, %0" : "=v"(v) : "m"(value));
      if constexpr (sizeof(Compute) == 8) asm("vbroadcastsd %1, %0" : "=v"(v) : "m"(value));
#endif
    }
  }

  /// Keeps the last `keep` lanes and replaces those before them.
  BATCHNORM_INLINE static void keep_last(V& v, const V& replacement, Index keep) {
    if constexpr (Bytes != 0) {
      // By bits: GCC takes a choice between vectors apart where the condition is not a comparison.
      typename VectorType<Int, sizeof(V)>::type kept, own, other;
      std::memcpy(&kept, &lane_masks<Int>[static_cast<std::size_t>(max_lanes - count + keep)], sizeof kept);
      copy_bits(own, v);
      copy_bits(other, replacement);
      own = (own & kept) | (other & ~kept);
      copy_bits(v, own);
    }
  }

 private:
  /// f(v, or what it is rounded to in an array of another type).
  template <class F>
  BATCHNORM_INLINE static void as_in_memory(const V& v, const F& f) {
    if constexpr (std::is_same_v<T, Compute>) {
      f(v);
    } else {
#if BATCHNORM_VECTORS
      typename Conversion<T, Compute, Bytes>::Raw raw;
      Conversion<T, Compute, Bytes>::round(raw, v);
      f(raw);
#endif
    }
  }

  template <class Raw>
  BATCHNORM_INLINE static void stream_raw([[maybe_unused]] T* to, [[maybe_unused]] const Raw& raw) {
#if BATCHNORM_X86 && defined(__clang__)
    __builtin_nontemporal_store(raw, reinterpret_cast<Raw*>(to));
#elif BATCHNORM_X86
    auto& bytes = *reinterpret_cast<char(*)[sizeof raw]>(to);
    if constexpr (Bytes == 16) {
      asm("movntps %1, %0" : "=m"(bytes) : "x"(raw));
    } else {
      asm("vmovntps %1, %0" : "=m"(bytes) : "v"(raw));
    }
#endif
  }
};

/// Orders streamed values before whatever this thread writes next.
inline void end_streaming() {
#if BATCHNORM_X86
  asm volatile("sfence" ::: "memory");
#endif
}

/// The lanes of L over an array of another type.
template <class L, class T>
using LanesOver = Lanes<T, typename L::Compute, L::bytes>;

}  // namespace batchnorm::detail
