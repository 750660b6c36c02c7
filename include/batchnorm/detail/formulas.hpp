#pragma once

#include <algorithm>
#include <limits>

#include "batchnorm/activation.hpp"
#include "batchnorm/detail/lanes.hpp"

// The arithmetic of sums and maps, one struct each, on vectors (V) or single values. How memory is walked is in
// reduce.hpp and map.hpp; to change a formula, change it here.

namespace batchnorm::detail {

/// 1 where float sums, and sums of squares of `count` values, have all their digits, else 0: neither have overflown,
/// nor are the squares near underflow.
template <class V, class Statistic>
BATCHNORM_INLINE void check_digits(const V& sum, const V& square_sum, const Statistic& count, V& reliable) {
  V zero;
  set_zero(zero);
  const V one = zero + Statistic(1), magnitude = square_sum < zero ? -square_sum : square_sum;
  reliable = sum - sum == zero ? one : zero;
  reliable = magnitude <= zero + std::numeric_limits<Statistic>::max() ? reliable : zero;
  reliable = magnitude >= zero + count * Statistic(0x1p-100) ? reliable : zero;
}

/// A formula may have weights among its inputs: one for each position, the same for all channels.
inline constexpr std::size_t no_weights = std::size_t(-1);

template <class Formula>
inline constexpr bool has_weights = Formula::weights != no_weights;

/// What a formula gives that has two results.
template <class V>
struct TwoResults {
  V first, second;
};

/// Per channel, first: mean; second: m2, the sum of squared deviations from it.
struct MomentFormula {
  static constexpr std::size_t inputs = 1, weights = no_weights;  // x
  enum Coefficient { center, coefficients };
  static constexpr bool finds_mean = true;

  // Centered before squaring: E[x^2] - mean^2 loses every digit when |mean| >> std.
  template <class V>
  BATCHNORM_INLINE static void accumulate(const V (&in)[1], const V (&c)[coefficients], V& sum, V& square_sum) {
    const V opposite = c[center] - in[0];  // only what is subtracted may come from memory
    sum -= opposite;
    square_sum += opposite * opposite;
  }

  /// Makes the first lanes count for nothing.
  template <class L, class V>
  BATCHNORM_INLINE static void keep_last(V (&in)[1], const V& center, Index keep) {
    L::keep_last(in[0], center, keep);
  }

  /// Also, the center of a first block must be within 1.4 standard deviations of the mean: sum^2 / count <= 2 m2.
  /// (Behind it the center is the mean so far: it is far from a block only where the variance is large.)
  template <class V, class Statistic>
  BATCHNORM_INLINE static void check(const V& sum, const V& square_sum, const Statistic& count, bool first_block,
                                     V& reliable) {
    check_digits(sum, square_sum, count, reliable);
    V zero;
    set_zero(zero);
    if (first_block) reliable = Statistic(3) * sum * sum <= Statistic(2) * count * square_sum ? reliable : zero;
  }

  /// From sums about `center` of 1 / inv_count values.
  template <class V, class Statistic>
  BATCHNORM_INLINE static void finish(const V& center, const V&, const V& sum, const V& square_sum,
                                      const Statistic& inv_count, V& mean, V& m2) {
    const V offset = sum * inv_count;
    mean = center + offset;
    m2 = square_sum - sum * offset;
  }

  /// Takes other values in: share = n_b / n and cross = n_a n_b / n (Chan, Golub and LeVeque 1979).
  template <class V, class Statistic>
  BATCHNORM_INLINE static void merge(V& mean, V& m2, const V& other_mean, const V& other_m2, const Statistic& share,
                                     const Statistic& cross) {
    const V delta = other_mean - mean;
    mean += delta * share;
    m2 += other_m2 + delta * delta * cross;
  }
};

/// y = act((x - center) * scale + shift). Never x * a + b: at mean 1e6 and std 1 that is wrong in the second digit.
template <class Act>
struct NormalizeFormula {
  static constexpr std::size_t inputs = 1, weights = no_weights;  // x
  enum Coefficient { center, scale, shift, constants };
  static constexpr int coefficients = constants + constants_of<Act>;

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[1], const V (&c)[coefficients], V& y) {
    y = (in[0] - c[center]) * c[scale] + c[shift];
    if constexpr (!is_identity<Act>) Act::apply(y, c + constants);
  }
};

/// y = act(v), v = (x - center) * scale + shift + z, alone or with act'(v).
template <class Act>
struct NormalizeAddFormula {
  static constexpr std::size_t inputs = 2, weights = no_weights;  // x, z
  using Normalize = NormalizeFormula<Identity>;
  static constexpr int constants = Normalize::coefficients, coefficients = constants + constants_of<Act>;

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[2], const V (&c)[coefficients], V& y) {
    add(in, c, y);
    if constexpr (!is_identity<Act>) Act::apply(y, c + constants);
  }

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[2], const V (&c)[coefficients], TwoResults<V>& y_slope) {
    V v;
    add(in, c, v);
    set_one(y_slope.second);
    Act::differentiate(v, y_slope.second, c + constants);
    Act::apply(v, c + constants);
    y_slope.first = v;
  }

 private:
  template <class V>
  BATCHNORM_INLINE static void add(const V (&in)[2], const V (&c)[coefficients], V& v) {
    v = (in[0] - c[Normalize::center]) * c[Normalize::scale] + c[Normalize::shift] + in[1];
  }
};

/// Per channel, first: sum of g; second: sum of g * (x - mean), with g = dy * act'(v) and v computed again from x: its
/// coefficients are those of NormalizeFormula.
template <class Act>
struct GradientFormula {
  static constexpr std::size_t inputs = 2, weights = no_weights;  // x, dy
  using Normalize = NormalizeFormula<Act>;
  enum Coefficient { center = Normalize::center };
  static constexpr int coefficients = is_identity<Act> ? 1 : Normalize::coefficients;
  static constexpr bool finds_mean = false;

  template <class V>
  BATCHNORM_INLINE static void accumulate(const V (&in)[2], const V (&c)[coefficients], V& sum, V& product_sum) {
    const V opposite = c[center] - in[0];
    V g = in[1];
    if constexpr (!is_identity<Act>) {
      const V v = c[Normalize::shift] - opposite * c[Normalize::scale];
      Act::differentiate(v, g, c + Normalize::constants);
    }
    sum += g;
    product_sum -= g * opposite;
  }

  template <class L, class V>
  BATCHNORM_INLINE static void keep_last(V (&in)[2], const V& center, Index keep) {
    L::keep_last(in[0], center, keep);
    L::keep_last(in[1], V{}, keep);
  }

  template <class V, class Statistic>
  BATCHNORM_INLINE static void check(const V& sum, const V& product_sum, const Statistic& count, bool, V& reliable) {
    check_digits(sum, product_sum, count, reliable);
  }

  /// `center` is the mean rounded to the kernel's type; the rest of the mean is taken off here.
  template <class V, class Statistic>
  BATCHNORM_INLINE static void finish(const V& center, const V& mean, const V& sum, const V& product_sum,
                                      const Statistic&, V& dy, V& dy_centered) {
    dy = sum;
    dy_centered = product_sum - sum * (mean - center);
  }

  template <class V, class Statistic>
  BATCHNORM_INLINE static void merge(V& dy, V& dy_centered, const V& other_dy, const V& other_dy_centered,
                                     const Statistic&, const Statistic&) {
    dy += other_dy;
    dy_centered += other_dy_centered;
  }
};

/// dx = g * scale + (x - center) * inv_std * xhat_scale + shift, with g = dy * act'((x - center) * scale + beta). The
/// two factors of (x - center) stay apart because their product leaves the range of float at a std of 1e19 or 1e-20.
template <class Act>
struct InputGradientFormula {
  static constexpr std::size_t inputs = 2, weights = no_weights;  // x, dy
  enum Coefficient { center, inv_std, scale, xhat_scale, shift, beta, constants };
  static constexpr int coefficients = is_identity<Act> ? beta : constants + constants_of<Act>;

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[2], const V (&c)[coefficients], V& dx) {
    const V deviation = in[0] - c[center];
    V g = in[1];
    if constexpr (!is_identity<Act>) {
      const V v = deviation * c[scale] + c[beta];
      Act::differentiate(v, g, c + constants);
    }
    combine(deviation, g, c, dx);
  }

  template <class V>
  BATCHNORM_INLINE static void combine(const V& deviation, const V& g, const V* c, V& dx) {
    dx = g * c[scale] + (deviation * c[inv_std] * c[xhat_scale] + c[shift]);
  }
};

/// From the output y = act(v): xhat = (v - beta) / gamma, so that v stands for x, and beta for the mean.
template <class Act, class V>
BATCHNORM_INLINE void invert_output(const V (&y_dy)[2], const V* constants, V (&v_g)[2]) {
  v_g[0] = y_dy[0];
  v_g[1] = y_dy[1];
  Act::differentiate(y_dy[0], v_g[1], constants);
  Act::invert(v_g[0], constants);
}

/// GradientFormula with v for x.
template <class Act>
struct OutputGradientFormula : GradientFormula<Identity> {
  using Base = GradientFormula<Identity>;  // inputs: y, dy
  static constexpr int constants = Base::coefficients, coefficients = constants + constants_of<Act>;

  template <class V>
  BATCHNORM_INLINE static void accumulate(const V (&in)[2], const V (&c)[coefficients], V& sum, V& product_sum) {
    V v_g[2];
    invert_output<Act>(in, c + constants, v_g);
    const V about[1] = {c[Base::center]};
    Base::accumulate(v_g, about, sum, product_sum);
  }
};

/// InputGradientFormula with v for x.
template <class Act>
struct InputGradientOfOutputFormula : InputGradientFormula<Identity> {
  using Base = InputGradientFormula<Identity>;  // inputs: y, dy
  static constexpr int constants = Base::coefficients, coefficients = constants + constants_of<Act>;

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[2], const V (&c)[coefficients], V& dx) {
    V v_g[2];
    invert_output<Act>(in, c + constants, v_g);
    Base::combine(v_g[0] - c[Base::center], v_g[1], c, dx);
  }
};

/// An activation of which is known where act' is 1: there the first argument is 1, too.
template <class Act>
struct KnownSlope : Act {
  template <class V>
  BATCHNORM_INLINE static void differentiate(const V& slope, V& g, const V* constants) {
    V one;
    set_one(one);
    V minus_one = -one, other = g;
    // A comparison with a constant would leave the loop, away from its choice, which GCC 12 cannot compile.
    if constexpr (constants_of < Act >> 0) settle(minus_one);
    Act::differentiate(minus_one, other, constants);
    g = slope == one ? g : other;
  }
};

/// GradientFormula where x does not tell what the activation saw. Act::differentiate is given what does: KnownSlope the
/// slope, an activation its output.
template <class Act>
struct SumGradientFormula : GradientFormula<Identity> {
  using Base = GradientFormula<Identity>;
  static constexpr std::size_t inputs = is_identity<Act> ? 2 : 3, dy = inputs - 1;  // x, slope or y, dy
  static constexpr int constants = Base::coefficients, coefficients = constants + constants_of<Act>;

  template <class V>
  BATCHNORM_INLINE static void accumulate(const V (&in)[inputs], const V (&c)[coefficients], V& sum, V& product_sum) {
    V x_g[2] = {in[0], in[dy]};
    Act::differentiate(in[1], x_g[1], c + constants);
    const V about[1] = {c[Base::center]};
    Base::accumulate(x_g, about, sum, product_sum);
  }

  template <class L, class V>
  BATCHNORM_INLINE static void keep_last(V (&in)[inputs], const V& center, Index keep) {
    L::keep_last(in[0], center, keep);
    L::keep_last(in[dy], V{}, keep);
  }
};

/// InputGradientFormula and g itself, which is the gradient of the residual.
template <class Act>
struct SumInputGradientFormula : InputGradientFormula<Identity> {
  using Base = InputGradientFormula<Identity>;
  static constexpr std::size_t inputs = SumGradientFormula<Act>::inputs, dy = inputs - 1;  // x, slope or y, dy
  static constexpr int constants = Base::coefficients, coefficients = constants + constants_of<Act>;

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[inputs], const V (&c)[coefficients], TwoResults<V>& dx_dz) {
    V& g = dx_dz.second;
    g = in[dy];
    Act::differentiate(in[1], g, c + constants);
    Base::combine(in[0] - c[Base::center], g, c, dx_dz.first);
  }
};

}  // namespace batchnorm::detail
