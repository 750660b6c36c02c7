#pragma once

#include <batchnorm/instantiate.hpp>

// Activations of which only layers.cpp has the functions: a file that compiled their kernels again would not link.

struct Ramp {
  std::array<double, 0> values() const { return {}; }
  template <class V>
  static void apply(V& v, const V*);
  template <class V>
  static void differentiate(const V& v, V& g, const V*);
};

/// Says that it has two slopes.
struct TwoSlopedRamp : Ramp {
  static constexpr bool has_two_slopes = true;
};

BATCHNORM_LAYER(extern template, float, TwoSlopedRamp);
BATCHNORM_RESIDUAL_LAYER(extern template, float, TwoSlopedRamp);
BATCHNORM_RESIDUAL_LAYER(extern template, float, Ramp);
BATCHNORM_RESIDUAL_LAYER(extern template, float, batchnorm::Identity);
