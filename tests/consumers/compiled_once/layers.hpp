#pragma once

#include <batchnorm/instantiate.hpp>

// Activations of which only layers.cpp has the functions: a file that compiled their kernels again would not link.

struct Ramp {
  static constexpr bool has_two_slopes = true;
  std::array<double, 0> values() const { return {}; }
  template <class V>
  static void apply(V& v, const V*);
  template <class V>
  static void differentiate(const V& v, V& g, const V*);
};

/// Does not say that it has two slopes.
struct SilentRamp {
  std::array<double, 0> values() const { return {}; }
  template <class V>
  static void apply(V& v, const V*);
  template <class V>
  static void differentiate(const V& v, V& g, const V*);
};

BATCHNORM_LAYER(extern template, float, Ramp);
BATCHNORM_RESIDUAL_LAYER(extern template, float, Ramp);
BATCHNORM_RESIDUAL_LAYER(extern template, float, SilentRamp);
BATCHNORM_RESIDUAL_LAYER(extern template, float, batchnorm::Identity);
