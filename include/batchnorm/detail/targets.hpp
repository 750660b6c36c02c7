#pragma once

#include <algorithm>
#include <atomic>
#include <limits>

#include "batchnorm/detail/lanes.hpp"
#include "batchnorm/error.hpp"

#if BATCHNORM_X86
#include <cpuid.h>
#endif

namespace batchnorm {

/// Instruction sets that the kernels choose from at run time, worst first: avx2 with FMA and F16C, avx512 with F, BW,
/// DQ and VL.
enum class Target { scalar, baseline, avx2, avx512 };

inline const char* name(Target target) {
  constexpr const char* names[] = {"scalar", "baseline", "avx2", "avx512"};
  return names[static_cast<int>(target)];
}

namespace detail {

// One function per instruction set: it compiles Kernel::run for it. The kernel is always inlined there, and so takes
// its instruction set from the attribute, whatever -m flags the file has.
template <class Kernel>
[[gnu::noinline]] void run_scalar(const Kernel& kernel) {
  kernel.template run<0>();
}

#if BATCHNORM_VECTORS
template <class Kernel>
[[gnu::noinline]] void run_baseline(const Kernel& kernel) {
  kernel.template run<16>();
}
#endif

#if BATCHNORM_X86
template <class Kernel>
[[gnu::noinline, gnu::target("avx2,fma,f16c")]] void run_avx2(const Kernel& kernel) {
  kernel.template run<32>();
}

template <class Kernel>
[[gnu::noinline, gnu::target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]] void run_avx512(
    const Kernel& kernel) {
  kernel.template run<64>();
}

/// Not every compiler's __builtin_cpu_supports knows of it.
inline bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

/// What the CPU has and the operating system saves (__builtin_cpu_supports checks both).
inline Target best_target() {
#if BATCHNORM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Target::avx512;
  }
  if (avx2) return Target::avx2;
#endif
  return BATCHNORM_VECTORS ? Target::baseline : Target::scalar;
}

inline std::atomic<Target>& target_in_use() {
  static std::atomic<Target> target{best_target()};
  return target;
}

/// Kernels ask for memory in advance where tensors do not stay in the caches. Outputs too: a store waits until its line
/// has been read. Tensors of 16 bits count as if they had 32.
inline constexpr Index min_prefetch_bytes = 6'000'000;

/// How cores best reach memory.
struct MemoryAccess {
  Index resident_bytes;         // what stays in a core's L2 from one pass to the next
  Index resident_run_bytes;     // what a core's share of the L3 holds from one pass to the next: runs of a channel
  Index min_kept_bytes;         // of inputs and outputs, from which on an L3 keeps what the nearer caches do not,
  Index max_kept_bytes;         // and up to which: beyond it stores go past the caches,
  Index max_kept_alone_bytes;   // where a single thread stores: it reaches memory nearly as fast as the L3
  Index near_prefetch_bytes;    // how far ahead kernels ask for memory, at least,
  Index far_prefetch_bytes;     // and where there is a single input
  Index min_row_bytes;          // of a tensor, from which on sums ask for rows of less than a page
  Index straight_run;           // longer runs, in values, of a single input of sums are walked straight on,
  Index straight_runs;          // and of each of several,
  Index straight_narrow_bytes;  // and narrow rows of several, as far as those have no more bytes
  bool streams_two;             // outputs at once: else the first alone goes past the caches
  bool prefetches_straight;     // what is walked straight on: the core does not do so by itself
  bool prefetches_over_gaps;    // later rows, for sums of rows with gaps between them
  bool returns_backwards;       // to what it has read: the end of that is still in the cache

  bool keeps(Index bytes) const { return bytes >= min_kept_bytes && !streams(bytes); }
  bool streams(Index bytes) const { return bytes > max_kept_bytes; }
  bool streams(Index bytes, Index threads) const {
    return bytes > (threads == 1 ? max_kept_alone_bytes : max_kept_bytes);
  }
  /// For each of the inputs.
  Index prefetch_bytes(Index tensor_bytes, Index inputs, Index outputs) const {
    if (inputs + outputs > 1 && streams(tensor_bytes)) return near_prefetch_bytes;
    return inputs == 1 ? far_prefetch_bytes : std::max(near_prefetch_bytes, far_prefetch_bytes / 2);
  }
};

/// AMD's cores with AVX-512, as measured on Zen 5 (benchmarks/README.md).
inline constexpr MemoryAccess zen5_access{.resident_bytes = Index(512) << 10,
                                          .resident_run_bytes = Index(4) << 20,
                                          .min_kept_bytes = Index(12) << 20,
                                          .max_kept_bytes = Index(32) << 20,
                                          .max_kept_alone_bytes = Index(32) << 20,
                                          .near_prefetch_bytes = Index(2) << 10,
                                          .far_prefetch_bytes = Index(8) << 10,
                                          .min_row_bytes = min_prefetch_bytes,
                                          .straight_run = 32768,
                                          .straight_runs = 32768,
                                          .straight_narrow_bytes = std::numeric_limits<Index>::max(),
                                          .streams_two = true,
                                          .prefetches_straight = false,
                                          .prefetches_over_gaps = true,
                                          .returns_backwards = false};
/// Those without, as measured on Zen 3, whose L2 has 512 KB; its L3 has 32 MB as well, but a server's other cores have
/// their share of it.
inline constexpr MemoryAccess zen3_access = [] {
  MemoryAccess access = zen5_access;
  access.resident_bytes = Index(256) << 10;
  access.max_kept_bytes = Index(16) << 20;
  access.max_kept_alone_bytes = Index(8) << 20;
  access.min_row_bytes = Index(256) << 10;
  access.straight_runs = 2048;
  access.straight_narrow_bytes = Index(16) << 20;
  access.streams_two = false;
  access.prefetches_over_gaps = false;
  return access;
}();
/// As measured on a server of Intel's.
inline constexpr MemoryAccess other_access{.resident_bytes = Index(512) << 10,
                                           .resident_run_bytes = Index(2) << 20,
                                           .min_kept_bytes = std::numeric_limits<Index>::max(),
                                           .max_kept_bytes = std::numeric_limits<Index>::max(),
                                           .max_kept_alone_bytes = std::numeric_limits<Index>::max(),
                                           .near_prefetch_bytes = Index(2) << 10,
                                           .far_prefetch_bytes = Index(2) << 10,
                                           .min_row_bytes = min_prefetch_bytes,
                                           .straight_run = 32768,
                                           .straight_runs = 32768,
                                           .straight_narrow_bytes = std::numeric_limits<Index>::max(),
                                           .streams_two = true,
                                           .prefetches_straight = true,
                                           .prefetches_over_gaps = true,
                                           .returns_backwards = true};

inline MemoryAccess best_access() {
#if BATCHNORM_X86
  __builtin_cpu_init();
  if (__builtin_cpu_is("amd")) return __builtin_cpu_supports("avx512f") ? zen5_access : zen3_access;
#endif
  return other_access;
}

/// Only tests change it, while no call runs.
inline MemoryAccess& memory_access() {
  static MemoryAccess access = best_access();
  return access;
}

}  // namespace detail

/// The instruction set in use: the best that the CPU and the operating system allow, unless set_target chose another.
inline Target active_target() { return detail::target_in_use().load(std::memory_order_relaxed); }

/// Chooses the instruction set for the whole program, to test or to measure one.
///
/// Throws: batchnorm::Error when this machine lacks it; then nothing changes.
inline void set_target(Target target) {
  if (target < Target::scalar || target > Target::avx512)
    detail::fail("set_target", "target is none of those that exist");
  if (target > detail::best_target()) {
    detail::fail("set_target",
                 std::string("target is ") + name(target) + "; the best one here is " + name(detail::best_target()));
  }
  detail::target_in_use().store(target, std::memory_order_relaxed);
}

namespace detail {

/// Runs a kernel with the vectors of the active target; with single values where `length`, its contiguous values, is
/// less than one vector of the widest target.
template <class Kernel>
void dispatch(const Kernel& kernel, [[maybe_unused]] Index length) {
  using Compute [[maybe_unused]] = typename Kernel::Compute;
#if BATCHNORM_VECTORS
  if constexpr (has_vectors<Compute>) {
    if (length >= pack_lanes<Compute>) {
      switch (active_target()) {
#if BATCHNORM_X86
        case Target::avx512:
          return detail::run_avx512(kernel);
        case Target::avx2:
          return detail::run_avx2(kernel);
#endif
        case Target::baseline:
          return detail::run_baseline(kernel);
        default:
          break;
      }
    }
  }
#endif
  detail::run_scalar(kernel);
}

/// The same with vectors of at most 32 bytes, however few values there are.
template <class Kernel>
void dispatch_narrow(const Kernel& kernel) {
#if BATCHNORM_VECTORS
  if constexpr (has_vectors<typename Kernel::Compute>) {
#if BATCHNORM_X86
    if (active_target() >= Target::avx2) return detail::run_avx2(kernel);
#endif
    if (active_target() >= Target::baseline) return detail::run_baseline(kernel);
  }
#endif
  detail::run_scalar(kernel);
}

}  // namespace detail
}  // namespace batchnorm
