#pragma once

#include <array>
#include <concepts>
#include <limits>
#include <type_traits>

#include "batchnorm/detail/vectors.hpp"
#include "batchnorm/error.hpp"

namespace batchnorm {

// What follows a normalization in the same pass over memory: out = act(v). The functions of an activation run inside
// the kernels: static templates over V, a vector of floats or doubles or a single value, made of arithmetic,
// comparisons and ternaries only (no if, no std:: functions), with settle() between two ternaries in a row. values() is
// a std::array<double, N>; constants[k] is a V filled with the k-th of them. Where v is NaN, so is the result. An
// activation whose derivative is 1, or else what it is at -1, says so by `has_two_slopes`: a layer then keeps one bit
// for each value that a residual was added to.

/// Keeps a choice between vectors apart from the next one: GCC would join both to one, which it takes apart lane by
/// lane for AVX-512.
template <class V>
BATCHNORM_INLINE void settle([[maybe_unused]] V& v) {
#if BATCHNORM_X86 && !defined(__clang__)
  if constexpr (!std::is_class_v<V> && !std::is_arithmetic_v<V>) asm("" : "+v"(v));
#endif
}

namespace detail {

template <class V>
BATCHNORM_INLINE void set_zero(V& v) {
  if constexpr (std::is_class_v<V>) {
    v = V(0);
  } else {
    v = V{};
  }
}

template <class V>
BATCHNORM_INLINE void set_one(V& v) {
  if constexpr (std::is_class_v<V>) {
    v = V(1);
  } else {
    v = V{} + 1;
  }
}

inline double checked_slope(double slope) {
  if (!(slope >= 0 && slope <= 1)) fail("LeakyRelu", "slope is ", slope, "; it must lie in [0, 1]");
  return slope;
}

inline double checked_cap(double cap) {
  if (!(cap > 0 && cap <= std::numeric_limits<double>::max())) {
    fail("ClippedRelu", "cap is ", cap, "; it must be finite and positive");
  }
  return cap;
}

}  // namespace detail

/// out = v.
struct Identity {
  std::array<double, 0> values() const { return {}; }

  template <class V>
  BATCHNORM_INLINE static void apply(V&, const V*) {}
  /// g *= act'(v).
  template <class V>
  BATCHNORM_INLINE static void differentiate(const V&, V&, const V*) {}
  /// v, from act(v).
  template <class V>
  BATCHNORM_INLINE static void invert(V&, const V*) {}
};

/// out = max(v, 0).
struct Relu {
  std::array<double, 0> values() const { return {}; }
  static constexpr bool has_two_slopes = true;

  template <class V>
  BATCHNORM_INLINE static void apply(V& v, const V*) {
    V zero;
    detail::set_zero(zero);
    v = v <= zero ? zero : v;
  }
  template <class V>
  BATCHNORM_INLINE static void differentiate(const V& v, V& g, const V*) {
    V zero;
    detail::set_zero(zero);
    g = v <= zero ? zero : g;
  }
};

/// out = v, and slope * v below 0. Can be inverted where slope is not 0.
class LeakyRelu {
 public:
  /// Throws: batchnorm::Error when slope does not lie in [0, 1].
  explicit LeakyRelu(double slope = 0.01) : slope_(detail::checked_slope(slope)) {}
  double slope() const { return slope_; }
  std::array<double, 1> values() const { return {slope_}; }
  static constexpr bool has_two_slopes = true;

  template <class V>
  BATCHNORM_INLINE static void apply(V& v, const V* constants) {
    differentiate(v, v, constants);
  }
  template <class V>
  BATCHNORM_INLINE static void differentiate(const V& v, V& g, const V* constants) {
    V zero;
    detail::set_zero(zero);
    const V sloped = g * constants[0];
    g = v <= zero ? sloped : g;
  }

  template <class V>
  BATCHNORM_INLINE static void invert(V& v, const V* constants) {
    V zero;
    detail::set_zero(zero);
    const V steep = v / constants[0];
    v = v <= zero ? steep : v;
  }

 private:
  double slope_;
};

/// out = min(max(v, 0), cap); ReLU6 by default.
class ClippedRelu {
 public:
  /// Throws: batchnorm::Error when cap is not finite and positive.
  explicit ClippedRelu(double cap = 6) : cap_(detail::checked_cap(cap)) {}
  double cap() const { return cap_; }
  std::array<double, 1> values() const { return {cap_}; }
  static constexpr bool has_two_slopes = true;

  template <class V>
  BATCHNORM_INLINE static void apply(V& v, const V* constants) {
    Relu::apply(v, constants);
    settle(v);
    v = v >= constants[0] ? constants[0] : v;
  }
  template <class V>
  BATCHNORM_INLINE static void differentiate(const V& v, V& g, const V* constants) {
    V zero;
    detail::set_zero(zero);
    Relu::differentiate(v, g, constants);
    settle(g);
    g = v >= constants[0] ? zero : g;
  }

 private:
  double cap_;
};

/// Any type with these three functions is one, where `differentiate` makes the same of act(v) as of v: it is given
/// either. Piecewise linear ones can do so that leave their kinks where they are, as ReLU, its leaky and clipped kinds
/// and hard tanh do; sigmoids, GELU and |v| cannot.
template <class A>
concept Activation = requires(const A& a, double v, double g) {
  a.values();
  A::apply(v, &g);
  A::differentiate(v, g, &v);
};

/// One whose input can be had from its output.
template <class A>
concept InvertibleActivation = Activation<A> && requires(const A& a, double v) {
  A::invert(v, &v);
};

namespace detail {

template <class A>
inline constexpr bool is_identity = std::is_same_v<A, Identity>;
template <class A>
inline constexpr bool has_two_slopes = requires {
  requires A::has_two_slopes;
};
/// Numbers that an activation is made of.
template <class A>
inline constexpr int constants_of = static_cast<int>(std::tuple_size_v<decltype(std::declval<const A&>().values())>);

}  // namespace detail
}  // namespace batchnorm
