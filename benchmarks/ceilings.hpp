#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

// The least that each pass of batch normalization can cost: the bare traffic of its reads and writes, with the widest
// vectors this machine has and hardly any arithmetic, or that of its sums. Nothing here knows of channels: sums and
// coefficients are those of one. x, dy and out start at cache lines.

namespace ceilings {

using Index = std::ptrdiff_t;

inline constexpr Index line_bytes = 64;

/// Streaming stores do not read a line before writing it, and leave it out of the caches. Prefetched: each line, of the
/// output as well, is asked for before it is needed.
enum class Access { plain, streaming, prefetched };

/// What is done with the values that are read to be summed: hardly anything, or what mean and variance, or the
/// gradients of gamma and beta, take of each value.
enum class Arithmetic { least, of_sums };

template <class T>
struct Arrays {
  const T* x;
  const T* dy;
  T* out;
  Index count;
  T* sum;  // keeps the compiler from dropping the reads
};

namespace detail {

template <class T, int Bytes>
struct VectorType {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <class T>
struct VectorType<T, 0> {
  using type = T;
};

/// One vector; with Bytes 0 one value, for what is left at the end.
template <class T, int Bytes>
struct Lanes {
  using V = typename VectorType<T, Bytes>::type;
  static constexpr Index count = Bytes == 0 ? 1 : Bytes / static_cast<Index>(sizeof(T));

  [[gnu::always_inline]] static void load(V& v, const T* from) { std::memcpy(&v, from, sizeof v); }

  template <Access access>
  [[gnu::always_inline]] static void store(T* to, const V& v) {
    if constexpr (access != Access::streaming || Bytes == 0) {
      std::memcpy(to, &v, sizeof v);
    } else {
#if defined(__clang__)
      __builtin_nontemporal_store(v, reinterpret_cast<V*>(to));
#elif defined(__x86_64__)
      // GCC's intrinsics of an instruction set do not inline into a template that names none.
      if constexpr (Bytes == 16) {
        asm("movntps %1, %0" : "=m"(*reinterpret_cast<V*>(to)) : "x"(v));
      } else {
        asm("vmovntps %1, %0" : "=m"(*reinterpret_cast<V*>(to)) : "v"(v));
      }
#else
      std::memcpy(to, &v, sizeof v);
#endif
    }
  }
};

/// Asks for the lines ahead of these places.
template <Access access, class... T>
[[gnu::always_inline]] inline void look_ahead(const T*... at) {
  constexpr std::uintptr_t ahead = 2048;
  if constexpr (access == Access::prefetched) {
    (__builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(at) + ahead)), ...);
  }
}

/// Vectors per turn of a loop: enough to keep both load ports busy.
inline constexpr Index unroll = 8;

/// Sums of vectors, in registers: so many that none waits for the addition before.
template <class T, class L, Index count = unroll>
class Sums {
 public:
  [[gnu::always_inline]] void add(Index k, const typename L::V& v) { sums_[k % count] += v; }

  [[gnu::always_inline]] void finish(T* to) const {
    for (const typename L::V& sum : sums_) {
      if constexpr (L::count == 1) {
        *to += sum;
      } else {
        for (Index lane = 0; lane < L::count; ++lane) *to += sum[lane];
      }
    }
  }

 private:
  typename L::V sums_[count] = {};
};

/// Of two kinds, side by side: as many as sixteen registers hold.
template <class T, class L>
struct TwoSums {
  Sums<T, L, unroll / 2> first, second;

  [[gnu::always_inline]] void finish(T* to) const {
    first.finish(to);
    second.finish(to);
  }
};

template <class T, class L, Arithmetic arithmetic>
using SumsFor = std::conditional_t<arithmetic == Arithmetic::least, Sums<T, L>, TwoSums<T, L>>;

/// What values are summed about.
template <class T>
inline constexpr T center = T(0.5);

/// Reads x once: sum of x, or of x - center and of its square.
template <Access access, Arithmetic arithmetic>
struct Read {
  template <class T, class L>
  struct On {
    SumsFor<T, L, arithmetic> sums;
    [[gnu::always_inline]] void step(const Arrays<T>& a, Index i, Index k) {
      look_ahead<access>(a.x + i);
      typename L::V x;
      L::load(x, a.x + i);
      if constexpr (arithmetic == Arithmetic::least) {
        sums.add(k, x);
      } else {
        x -= center<T>;
        sums.first.add(k, x);
        sums.second.add(k, x * x);
      }
    }
    [[gnu::always_inline]] void finish(const Arrays<T>& a) const { sums.finish(a.sum); }
  };
};

/// Reads x and dy once: sum of x * dy, or of dy and of dy * (x - center).
template <Access access, Arithmetic arithmetic>
struct ReadTwo {
  template <class T, class L>
  struct On {
    SumsFor<T, L, arithmetic> sums;
    [[gnu::always_inline]] void step(const Arrays<T>& a, Index i, Index k) {
      look_ahead<access>(a.x + i, a.dy + i);
      typename L::V x, dy;
      L::load(x, a.x + i);
      L::load(dy, a.dy + i);
      if constexpr (arithmetic == Arithmetic::least) {
        sums.add(k, x * dy);
      } else {
        sums.first.add(k, dy);
        sums.second.add(k, dy * (x - center<T>));
      }
    }
    [[gnu::always_inline]] void finish(const Arrays<T>& a) const { sums.finish(a.sum); }
  };
};

/// Orders streaming stores before what follows, as whoever uses them must.
template <Access access>
[[gnu::always_inline]] inline void fence() {
#if defined(__x86_64__)
  if constexpr (access == Access::streaming) asm volatile("sfence" ::: "memory");
#endif
}

/// out = 1.25 x + 0.5: reads x and writes out once.
template <Access access>
struct Copy {
  template <class T, class L>
  struct On {
    [[gnu::always_inline]] void step(const Arrays<T>& a, Index i, Index) {
      look_ahead<access>(a.x + i, a.out + i);
      typename L::V x;
      L::load(x, a.x + i);
      L::template store<access>(a.out + i, x * T(1.25) + T(0.5));
    }
    [[gnu::always_inline]] void finish(const Arrays<T>&) const { fence<access>(); }
  };
};

/// out = 1.25 x + 0.75 dy + 0.5: reads x and dy and writes out once.
template <Access access>
struct Combine {
  template <class T, class L>
  struct On {
    [[gnu::always_inline]] void step(const Arrays<T>& a, Index i, Index) {
      look_ahead<access>(a.x + i, a.dy + i, a.out + i);
      typename L::V x, dy;
      L::load(x, a.x + i);
      L::load(dy, a.dy + i);
      L::template store<access>(a.out + i, x * T(1.25) + dy * T(0.75) + T(0.5));
    }
    [[gnu::always_inline]] void finish(const Arrays<T>&) const { fence<access>(); }
  };
};

template <class Kernel, int Bytes, class T>
[[gnu::always_inline]] inline void sweep(const Arrays<T>& a) {
  using L = Lanes<T, Bytes>;
  typename Kernel::template On<T, L> kernel;
  Index i = 0;
  for (; i + unroll * L::count <= a.count; i += unroll * L::count) {
#pragma GCC unroll 8
    for (Index k = 0; k < unroll; ++k) kernel.step(a, i + k * L::count, k);
  }
  for (; i + L::count <= a.count; i += L::count) kernel.step(a, i, 0);
  kernel.finish(a);

  typename Kernel::template On<T, Lanes<T, 0>> rest;
  for (; i < a.count; ++i) rest.step(a, i, 0);
  rest.finish(a);
}

template <class Kernel, class T>
[[gnu::noinline]] void run_baseline(const Arrays<T>& arrays) {
  sweep<Kernel, 16>(arrays);
}

#if defined(__x86_64__)
template <class Kernel, class T>
[[gnu::noinline, gnu::target("avx2,fma")]] void run_avx2(const Arrays<T>& arrays) {
  sweep<Kernel, 32>(arrays);
}

template <class Kernel, class T>
[[gnu::noinline, gnu::target("avx2,fma,avx512f")]] void run_avx512(const Arrays<T>& arrays) {
  sweep<Kernel, 64>(arrays);
}
#endif

inline int widest_vector() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return 64;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 32;
#endif
  return 16;
}

template <class Kernel, class T>
void run(const Arrays<T>& arrays) {
#if defined(__x86_64__)
  static const int bytes = widest_vector();
  if (bytes == 64) return run_avx512<Kernel>(arrays);
  if (bytes == 32) return run_avx2<Kernel>(arrays);
#endif
  run_baseline<Kernel>(arrays);
}

/// f(access) as a constant.
template <class F>
void with_constant(Access access, const F& f) {
  switch (access) {
    case Access::plain:
      return f(std::integral_constant<Access, Access::plain>());
    case Access::streaming:
      return f(std::integral_constant<Access, Access::streaming>());
    case Access::prefetched:
      return f(std::integral_constant<Access, Access::prefetched>());
  }
}

template <template <Access> class Kernel, class T>
void run(Access access, const Arrays<T>& arrays) {
  with_constant(access, [&](auto constant) { run<Kernel<constant>>(arrays); });
}

template <template <Access, Arithmetic> class Kernel, class T>
void run(Access access, Arithmetic arithmetic, const Arrays<T>& arrays) {
  with_constant(access, [&](auto constant) {
    arithmetic == Arithmetic::least ? run<Kernel<constant, Arithmetic::least>>(arrays)
                                    : run<Kernel<constant, Arithmetic::of_sums>>(arrays);
  });
}

}  // namespace detail

/// The sums of training forward: one read.
template <class T>
void moments(Access access, Arithmetic arithmetic, const Arrays<T>& arrays) {
  detail::run<detail::Read>(access, arithmetic, arrays);
}

/// The sums of backward: x and dy are read.
template <class T>
void gradients(Access access, Arithmetic arithmetic, const Arrays<T>& arrays) {
  detail::run<detail::ReadTwo>(access, arithmetic, arrays);
}

template <class T>
void inference(Access access, const Arrays<T>& arrays) {
  detail::run<detail::Copy>(access, arrays);
}

/// Training forward: its statistics take one read, its normalization a copy.
template <class T>
void training(Access access, Arithmetic arithmetic, const Arrays<T>& arrays) {
  moments(access, arithmetic, arrays);
  inference(access, arrays);
}

/// Backward: its sums read x and dy, its gradient reads both again and writes.
template <class T>
void backward(Access access, Arithmetic arithmetic, const Arrays<T>& arrays) {
  gradients(access, arithmetic, arrays);
  detail::run<detail::Combine>(access, arrays);
}

/// Part `k` of `parts` nearly equal ones, cut at cache lines.
template <class T>
Arrays<T> part_of(const Arrays<T>& arrays, int k, int parts) {
  constexpr Index line = line_bytes / static_cast<Index>(sizeof(T));
  const auto bound = [&](Index i) { return i == parts ? arrays.count : arrays.count * i / parts / line * line; };
  const Index begin = bound(k), count = bound(k + 1) - begin;
  // The sums lie a line apart: threads that share a line slow each other down.
  return {arrays.x + begin, arrays.dy + begin, arrays.out + begin, count, arrays.sum + k * line};
}

/// Threads that start sooner than those of any thread pool: they spin a while before they sleep.
class Team {
 public:
  explicit Team(int threads) {
    for (int k = 1; k < threads; ++k) helpers_.emplace_back([this, k] { help(k); });
  }
  ~Team() {
    start(nullptr, nullptr);
    for (std::thread& helper : helpers_) helper.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  /// task(k) on thread k, for all of them.
  template <class Task>
  void run(const Task& task) {
    if (helpers_.empty()) return task(0);
    busy_.store(static_cast<int>(helpers_.size()));
    start([](const void* of, int k) { (*static_cast<const Task*>(of))(k); }, &task);
    task(0);
    while (busy_.load() > 0) pause();
  }

 private:
  using Call = void (*)(const void*, int);

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void start(Call call, const void* task) {
    call_ = call;
    task_ = task;
    ++round_;
    round_.notify_all();
  }

  void help(int k) {
    constexpr int spins = 2000;
    for (unsigned seen = 0;; ++seen) {
      for (int spin = 0; spin < spins && round_.load() == seen; ++spin) pause();
      round_.wait(seen);
      if (call_ == nullptr) return;
      call_(task_, k);
      --busy_;
    }
  }

  Call call_ = nullptr;
  const void* task_ = nullptr;
  std::atomic<unsigned> round_{0};
  std::atomic<int> busy_{0};
  std::vector<std::thread> helpers_;
};

}  // namespace ceilings
