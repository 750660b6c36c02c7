#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

// The compilers' vector extension, where it is there.

#if defined(__GNUC__) && !defined(BATCHNORM_SCALAR_ONLY)
#define BATCHNORM_VECTORS 1
#define BATCHNORM_INLINE [[gnu::always_inline]] inline
#elif defined(__GNUC__)
#define BATCHNORM_VECTORS 0
#define BATCHNORM_INLINE [[gnu::always_inline]] inline
#else
#define BATCHNORM_VECTORS 0
#define BATCHNORM_INLINE inline
#endif

#if BATCHNORM_VECTORS && defined(__x86_64__)
#define BATCHNORM_X86 1
#else
#define BATCHNORM_X86 0
#endif

#if defined(__GNUC__)
#define BATCHNORM_INLINE_LAMBDA __attribute__((always_inline))
#else
#define BATCHNORM_INLINE_LAMBDA
#endif

namespace batchnorm::detail {

/// f(0), ..., f(n - 1), where each number is a constant.
template <std::size_t n, class F>
BATCHNORM_INLINE void for_each_index(const F& f) {
  [&]<std::size_t... k>(std::index_sequence<k...>) BATCHNORM_INLINE_LAMBDA {
    (f(std::integral_constant<std::size_t, k>()), ...);
  }
  (std::make_index_sequence<n>());
}

#if BATCHNORM_VECTORS
template <class T, int Bytes>
struct VectorType {
  typedef T type __attribute__((vector_size(Bytes)));
};
#else
template <class T, int Bytes>
struct VectorType;
#endif
template <class T>
struct VectorType<T, 0> {
  using type = T;
};

/// Keeps a pointer or a number in a register of its own through the loop that follows: Clang would read it anew from
/// the stack for each vector.
template <class T>
BATCHNORM_INLINE void hold([[maybe_unused]] T& value) {
#if defined(__GNUC__)
  asm("" : "+r"(value));
#endif
}

}  // namespace batchnorm::detail
