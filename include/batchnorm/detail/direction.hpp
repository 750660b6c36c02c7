#pragma once

#include <algorithm>
#include <array>
#include <limits>

#include "batchnorm/detail/gradients.hpp"

// What second_order.hpp computes: formulas of derivatives in a direction, with v the part of x, and their passes.

namespace batchnorm::detail {

/// gx = dy * inv_std * dy_scale + v * inv_std * v_scale + (x - center) * inv_std * xhat_scale + shift. The factors can
/// stay apart because gx has inv_std^2 in all terms: at a std of 1e-20 that leaves the range of float, where
/// dy * inv_std and v * inv_std do so no sooner than dx and ty.
struct SecondGradientFormula {
  static constexpr std::size_t inputs = 3, weights = no_weights;  // x, dy, v
  enum Coefficient { center, inv_std, dy_scale, v_scale, xhat_scale, shift, coefficients };

  template <class V>
  BATCHNORM_INLINE static void apply(const V (&in)[3], const V (&c)[coefficients], V& gx) {
    gx = in[1] * c[inv_std] * c[dy_scale] +
         (in[2] * c[inv_std] * c[v_scale] + ((in[0] - c[center]) * c[inv_std] * c[xhat_scale] + c[shift]));
  }
};

/// Of x, dy and v, the part of x in a direction, in every channel. All are zero where the statistics are constants, but
/// for v_dy, which has dy_mean = 0 then, and for v behind sum_products.
template <class Statistic>
struct DirectionSums {
  static constexpr Index arrays = 5;
  Statistic* dy_mean;
  Statistic* dy_centered;  // sum of dy * (x - mean)
  Statistic* v;            // sum of v
  Statistic* v_centered;   // sum of v * (x - mean)
  Statistic* v_dy;         // sum of v * (dy - dy_mean)

  DirectionSums(Statistic* memory, Index channels)
      : dy_mean(memory),
        dy_centered(dy_mean + channels),
        v(dy_centered + channels),
        v_centered(v + channels),
        v_dy(v_centered + channels) {
    std::fill_n(memory, arrays * channels, Statistic(0));
  }
};

/// Sets the coefficients of InputGradientFormula for a range of channels: with v the part of x,
/// ty = gamma inv_std [v - sum(v) / n - xhat inv_std sum(v (x - mean)) / n] + xhat v_gamma + v_beta.
/// Sums of zero stand for statistics that are constants.
template <class T>
struct FillTangent {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  using Parameter = ParameterOf<T>;
  MomentsView<Statistic> moments;
  DirectionSums<Statistic> sums;
  const Parameter *gamma, *v_gamma, *v_beta;
  double epsilon;

  using Formula = InputGradientFormula<Identity>;

  void operator()(const std::array<Compute*, Formula::coefficients>& to, Index begin, Index end) const {
    const Statistic inv_count = Statistic(1) / moments.count;
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
      typename L::V mean, inv_std, scale, sum, sum_centered, xhat_scale, shift;
      L::load(mean, moments.mean + c);
      moments.template inverse_std<L>(c, epsilon, inv_std);
      L::load(sum, sums.v + c);
      L::load(sum_centered, sums.v_centered + c);
      load_channels<L>(scale, gamma, c, 1);
      load_channels<L>(xhat_scale, v_gamma, c, 0);
      load_channels<L>(shift, v_beta, c, 0);
      scale *= inv_std;
      xhat_scale -= scale * (inv_std * sum_centered * inv_count);
      shift -= scale * (sum * inv_count);
      store_input_gradient<L>(to, c, mean, inv_std, scale, xhat_scale, shift);
    });
  }
};

/// Sets the coefficients of SecondGradientFormula for a range of channels. With a = mean of dy xhat, b = mean of v xhat
/// and k = mean of v (dy - dy_mean), gx = gamma inv_std^2 [xhat (3 a b - k) - b (dy - dy_mean) - a (v - v_mean)]
/// + v_gamma inv_std [dy - dy_mean - a xhat].
template <class T>
struct FillSecondGradient {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  MomentsView<Statistic> moments;
  DirectionSums<Statistic> sums;
  const ParameterOf<T>*gamma, *v_gamma;
  double epsilon;

  void operator()(const std::array<Compute*, SecondGradientFormula::coefficients>& to, Index begin, Index end) const {
    using Formula = SecondGradientFormula;
    const Statistic inv_count = Statistic(1) / moments.count;
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
      typename L::V mean, center, inv_std, scale, dy_mean, dy_xhat, v, v_xhat, v_dy, dy_scale, v_scale, xhat_scale;
      L::load(mean, moments.mean + c);
      L::load(dy_mean, sums.dy_mean + c);
      L::load(dy_xhat, sums.dy_centered + c);
      L::load(v, sums.v + c);
      L::load(v_xhat, sums.v_centered + c);
      L::load(v_dy, sums.v_dy + c);
      moments.template inverse_std<L>(c, epsilon, inv_std);
      load_channels<L>(scale, gamma, c, 1);
      load_channels<L>(dy_scale, v_gamma, c, 0);
      dy_xhat *= inv_std * inv_count;
      v_xhat *= inv_std * inv_count;
      scale *= inv_std;
      xhat_scale = inv_std * (scale * (Statistic(3) * dy_xhat * v_xhat - v_dy * inv_count) - dy_scale * dy_xhat);
      v_scale = -scale * dy_xhat;
      dy_scale -= scale * v_xhat;
      const typename L::V through_means = dy_mean * dy_scale + v * inv_count * v_scale;
      store_channels<L>(to[Formula::center] + c, mean);
      load_channels<L>(center, to[Formula::center] + c);
      // The digits of the mean that Compute cannot hold go into the shift.
      store_channels<L>(to[Formula::shift] + c, -inv_std * (through_means + (mean - center) * xhat_scale));
      multiply_where_in_range<L>(inv_std, dy_scale, v_scale, xhat_scale);
      store_channels<L>(to[Formula::inv_std] + c, inv_std);
      store_channels<L>(to[Formula::dy_scale] + c, dy_scale);
      store_channels<L>(to[Formula::v_scale] + c, v_scale);
      store_channels<L>(to[Formula::xhat_scale] + c, xhat_scale);
    });
  }

 private:
  /// Spares each value a factor, and its rounding.
  template <class L>
  BATCHNORM_INLINE static void multiply_where_in_range(typename L::V& factor, typename L::V& a, typename L::V& b,
                                                       typename L::V& c) {
    if constexpr (!std::is_same_v<Compute, Statistic>) {
      typename L::V one, all_in_range;
      L::fill(one, Statistic(1));
      all_in_range = one;
      for (const typename L::V* const scale : {&a, &b, &c}) check_range<L>(factor * *scale, all_in_range);
      for (typename L::V* const scale : {&a, &b, &c}) *scale *= all_in_range == one ? factor : one;
      factor = all_in_range == one ? one : factor;
    }
  }

  /// Sets `in_range` to 0 where Compute cannot hold v with all its digits.
  template <class L>
  BATCHNORM_INLINE static void check_range(const typename L::V& v, typename L::V& in_range) {
    typename L::V zero, least, largest;
    L::clear(zero);
    L::fill(least, static_cast<Statistic>(std::numeric_limits<Compute>::min()));
    L::fill(largest, static_cast<Statistic>(std::numeric_limits<Compute>::max()));
    const typename L::V magnitude = v < zero ? -v : v;
    in_range = ((magnitude >= least) | (magnitude == zero)) ? in_range : zero;
    in_range = magnitude <= largest ? in_range : zero;
  }
};

/// The gradient of gamma: inv_std [sum v (dy - dy_mean) - inv_std^2 sum(dy (x - mean)) sum(v (x - mean)) / n].
template <class Statistic, class Parameter>
void second_gamma_gradient(const MomentsView<Statistic>& moments, const DirectionSums<Statistic>& sums, double epsilon,
                           Parameter* to, Index channels) {
  const Statistic inv_count = Statistic(1) / moments.count;
  for_channels<Statistic>(0, channels, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
    typename L::V v_dy, dy_centered, v_centered, inv_std;
    L::load(v_dy, sums.v_dy + c);
    L::load(dy_centered, sums.dy_centered + c);
    L::load(v_centered, sums.v_centered + c);
    moments.template inverse_std<L>(c, epsilon, inv_std);
    store_channels<L>(to + c, inv_std * (v_dy - (inv_std * dy_centered) * (inv_std * v_centered) * inv_count));
  });
}

/// ty, and the sums of v where the statistics are of the batch. Where they are not, x is read only if gamma moves.
template <class In, class T, class Out>
void tangent(const AnyDevice& device, const In& x_v, const View<Out>& ty, const FillTangent<T>& fill,
             Statistics statistics, Workspace<T>& workspace) {
  const DirectionSums<StatisticOf<T>>& sums = fill.sums;
  if (statistics == Statistics::constant && fill.v_gamma == nullptr) {
    const MomentsView<StatisticOf<T>> with_mean_zero{fill.moments.count, sums.v, fill.moments.m2};
    const FillNormalize<T> fill_v{with_mean_zero, {fill.gamma, fill.v_beta}, fill.epsilon};
    return normalize(device, Inputs(x_v.template get<1>()), ty, fill_v, workspace);
  }
  using Formula = InputGradientFormula<Identity>;
  const Grid grid = grid_of(x_v, ty);
  if (statistics == Statistics::constant) {
    return detail::run(device, make_map<Formula>(make_linear_partition(grid, 2), x_v, ty), fill, workspace);
  }
  const Partition partition = make_partition(grid, 2);
  detail::run(device,
              make_reduction<GradientFormula<Identity>>(partition, x_v, fill.moments.mean, sums.v, sums.v_centered),
              NoCoefficients{}, make_map_after<Formula>(partition, x_v, ty), fill, workspace);
}

/// Of each channel: the sum of b, and that of b * (a - center).
template <class In, class T>
void sum_pair(const AnyDevice& device, const In& a_b, const StatisticOf<T>* center, StatisticOf<T>* sum,
              StatisticOf<T>* product_sum, Workspace<T>& workspace) {
  const Partition partition = make_partition(grid_of(a_b), 2);
  detail::run(device, make_reduction<GradientFormula<Identity>>(partition, a_b, center, sum, product_sum),
              NoCoefficients{}, workspace);
}

/// The sums of dy, alone and with v, whose own ones are there.
template <class In, class T>
void sum_products(const AnyDevice& device, const In& x_dy_v, const MomentsView<StatisticOf<T>>& moments,
                  const DirectionSums<StatisticOf<T>>& sums, Statistics statistics, Workspace<T>& workspace) {
  const auto& [x, dy, v] = x_dy_v.views;
  if (statistics == Statistics::of_batch) {
    sum_pair(device, Inputs(x, dy), moments.mean, sums.dy_mean, sums.dy_centered, workspace);
    for (Index c = 0; c < x.shape.channels; ++c) sums.dy_mean[c] /= moments.count;
  }
  // Centered, for the products of means would cancel; the other sum is that of v once more.
  sum_pair(device, Inputs(dy, v), sums.dy_mean, sums.v, sums.v_dy, workspace);
}

template <class In, class T, class Out>
void second_input_gradient(const AnyDevice& device, const In& x_dy_v, const View<Out>& gx,
                           const FillSecondGradient<T>& fill, Workspace<T>& workspace) {
  const Partition partition = make_linear_partition(grid_of(x_dy_v, gx), 3);
  detail::run(device, make_map<SecondGradientFormula>(partition, x_dy_v, gx), fill, workspace);
}

}  // namespace batchnorm::detail
