#pragma once

#include "batchnorm/detail/formulas.hpp"

// The formulas where each position has a weight, or is masked.

namespace batchnorm::detail {

/// What has weight 0 may be anything, NaN as well.
template <class V>
BATCHNORM_INLINE void replace_masked(const V& weight, V& v, const V& replacement) {
  V zero;
  set_zero(zero);
  settle(v);
  v = weight == zero ? replacement : v;
  settle(v);
}

/// MomentFormula where each value counts `weight` times.
struct WeightedMomentFormula : MomentFormula {
  static constexpr std::size_t inputs = 2, weights = 1;  // x, weights

  template <class V>
  BATCHNORM_INLINE static void accumulate(const V (&in)[2], const V (&c)[coefficients], V& sum, V& square_sum) {
    V value = in[0];
    replace_masked(in[1], value, c[center]);
    const V deviation = value - c[center], weighted = deviation * in[1];
    sum += weighted;
    square_sum += weighted * deviation;
  }

  template <class L, class V>
  BATCHNORM_INLINE static void keep_last(V (&in)[2], const V& center, Index keep) {
    L::keep_last(in[0], center, keep);
  }
};

/// NormalizeFormula, and 0 where the weight is 0.
template <class Act>
struct MaskedNormalizeFormula : NormalizeFormula<Act> {
  using Base = NormalizeFormula<Act>;
  static constexpr std::size_t inputs = 2, weights = 1;  // x, weights

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[2], const V (&c)[Base::coefficients], V& y) {
    const V x[1] = {in[0]};
    V zero;
    set_zero(zero);
    Base::apply(x, c, y);
    replace_masked(in[1], y, zero);
  }
};

/// GradientFormula without what has weight 0.
template <class Act>
struct MaskedGradientFormula : GradientFormula<Act> {
  using Base = GradientFormula<Act>;
  static constexpr std::size_t inputs = 3, weights = 2;  // x, dy, weights

  template <class V>
  BATCHNORM_INLINE static void accumulate(const V (&in)[3], const V (&c)[Base::coefficients], V& sum, V& product_sum) {
    V x_dy[2] = {in[0], in[1]};
    V zero;
    set_zero(zero);
    replace_masked(in[2], x_dy[0], c[Base::center]);
    replace_masked(in[2], x_dy[1], zero);
    Base::accumulate(x_dy, c, sum, product_sum);
  }

  template <class L, class V>
  BATCHNORM_INLINE static void keep_last(V (&in)[3], const V& center, Index keep) {
    L::keep_last(in[0], center, keep);
    L::keep_last(in[1], V{}, keep);
  }
};

/// InputGradientFormula where the mean and the variance weigh each value: dx = g * scale + weight * (...). Masked
/// outputs that are set to zero have no gradient.
template <class Act, bool zeroes>
struct WeightedInputGradientFormula : InputGradientFormula<Act> {
  using Base = InputGradientFormula<Act>;
  static constexpr std::size_t inputs = 3, weights = 2;  // x, dy, weights

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[3], const V (&c)[Base::coefficients], V& dx) {
    V deviation = in[0] - c[Base::center], g = in[1], zero;
    set_zero(zero);
    if constexpr (!is_identity<Act>) {
      const V v = deviation * c[Base::scale] + c[Base::beta];
      Act::differentiate(v, g, c + Base::constants);
    }
    replace_masked(in[2], deviation, zero);
    dx = g * c[Base::scale] + in[2] * (deviation * c[Base::inv_std] * c[Base::xhat_scale] + c[Base::shift]);
    if constexpr (zeroes) replace_masked(in[2], dx, zero);
  }
};

}  // namespace batchnorm::detail
