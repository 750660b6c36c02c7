#pragma once

#include "batchnorm/detail/normalize.hpp"
#include "batchnorm/gradient_sums.hpp"

// The passes of a backward.

namespace batchnorm::detail {

/// The gradients of a loss with respect to the batch mean and variance, where those are outputs too; else null.
template <class Statistic>
struct StatisticGradients {
  const Statistic* mean = nullptr;
  const Statistic* var = nullptr;
};

/// Stores coefficients of InputGradientFormula for a vector of channels. The digits of the mean that Compute cannot
/// hold go into the shift.
template <class L, class Compute, std::size_t N>
BATCHNORM_INLINE void store_input_gradient(const std::array<Compute*, N>& to, Index c, const typename L::V& mean,
                                           const typename L::V& inv_std, const typename L::V& scale,
                                           const typename L::V& xhat_scale, const typename L::V& shift) {
  using Formula = InputGradientFormula<Identity>;
  typename L::V center;
  store_channels<L>(to[Formula::center] + c, mean);
  load_channels<L>(center, to[Formula::center] + c);
  store_channels<L>(to[Formula::inv_std] + c, inv_std);
  store_channels<L>(to[Formula::scale] + c, scale);
  store_channels<L>(to[Formula::xhat_scale] + c, xhat_scale);
  store_channels<L>(to[Formula::shift] + c, shift - (mean - center) * inv_std * xhat_scale);
}

/// Sets the coefficients of InputGradientFormula for a range of channels:
/// dx = gamma inv_std [g - sum(g) / n - xhat inv_std sum(g (x - mean)) / n] + dmean / n + 2 (x - mean) dvar / n.
template <class T, class Act = Identity>
struct FillInputGradient {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  using Formula = InputGradientFormula<Act>;
  MomentsView<Statistic> moments;
  const BasicGradientSums<Statistic>* sums;  // null where the statistics are constants
  Parameters<T> parameters;
  double epsilon;
  Act activation = {};
  StatisticGradients<Statistic> statistics = {};

  void operator()(const std::array<Compute*, Formula::coefficients>& to, Index begin, Index end) const {
    const Statistic inv_count = moments.count > Statistic(0) ? Statistic(1) / moments.count : Statistic(0);
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
      typename L::V mean, inv_std, scale, dy, dy_centered;
      L::load(mean, moments.mean + c);
      load_channels<L>(dy, sums == nullptr ? nullptr : sums->dy.data(), c, 0);
      load_channels<L>(dy_centered, sums == nullptr ? nullptr : sums->dy_centered.data(), c, 0);
      moments.template inverse_std<L>(c, epsilon, inv_std);
      load_channels<L>(scale, parameters.gamma, c, 1);
      scale *= inv_std;
      typename L::V xhat_scale = -scale * (inv_std * dy_centered * inv_count);
      typename L::V shift = -scale * (dy * inv_count);
      add_statistics<L>(c, inv_std, inv_count, xhat_scale, shift);
      store_input_gradient<L>(to, c, mean, inv_std, scale, xhat_scale, shift);
      if constexpr (!is_identity<Act>) {
        typename L::V center, beta;
        load_channels<L>(center, to[Formula::center] + c);
        load_channels<L>(beta, parameters.beta, c, 0);
        store_channels<L>(to[Formula::beta] + c, beta - (mean - center) * scale);
      }
    });
    if constexpr (!is_identity<Act>) fill_constants(activation, to, Formula::constants, begin, end);
  }

 private:
  template <class L>
  BATCHNORM_INLINE void add_statistics(Index c, const typename L::V& inv_std, const Statistic& inv_count,
                                       typename L::V& xhat_scale, typename L::V& shift) const {
    typename L::V gradient;
    if (statistics.mean != nullptr) {
      L::load(gradient, statistics.mean + c);
      shift += gradient * inv_count;
    }
    if (statistics.var != nullptr) {
      L::load(gradient, statistics.var + c);
      const typename L::V scaled = Statistic(2) * gradient * inv_count / inv_std;
      // Without a spread, x - mean is 0 anyway.
      xhat_scale += inv_std == Statistic(0) ? gradient - gradient : scaled;
    }
  }
};

/// Sets NormalizeFormula to dx = gamma inv_std dy: the gradient where the statistics are constants.
template <class T>
struct FillScale {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  MomentsView<Statistic> moments;
  const ParameterOf<T>* gamma;
  double epsilon;

  using Formula = NormalizeFormula<Identity>;

  void operator()(const std::array<Compute*, Formula::coefficients>& to, Index begin, Index end) const {
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
      typename L::V scale, inv_std;
      load_channels<L>(scale, gamma, c, 1);
      moments.template inverse_std<L>(c, epsilon, inv_std);
      store_channels<L>(to[Formula::scale] + c, scale * inv_std);
    });
    std::fill(to[Formula::center] + begin, to[Formula::center] + end, Compute(0));
    std::fill(to[Formula::shift] + begin, to[Formula::shift] + end, Compute(0));
  }
};

template <class Statistic>
void clear(BasicGradientSums<Statistic>& sums, Index channels) {
  sums.dy.setZero(channels);
  sums.dy_centered.setZero(channels);
}

/// `fill_normalize` gives what the activation's derivative depends on.
template <class In, class T, class Act>
void collect_gradients(const AnyDevice& device, const In& x_dy, const FillNormalize<T, Act>& fill_normalize,
                       BasicGradientSums<StatisticOf<T>>& sums, Workspace<T>& workspace) {
  const Shape& shape = x_dy.shape();
  clear(sums, shape.channels);
  if (shape.size() == 0) return;
  const Partition partition = make_partition(grid_of(x_dy), 2);
  detail::run(device,
              make_reduction<GradientFormula<Act>>(partition, x_dy, fill_normalize.moments.mean, sums.dy.data(),
                                                   sums.dy_centered.data()),
              fill_normalize, workspace);
}

template <class In, class T, class Act, class Out>
void input_gradient(const AnyDevice& device, const In& x_dy, const View<Out>& dx, const FillInputGradient<T, Act>& fill,
                    Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return;
  const Partition partition = make_linear_partition(grid_of(x_dy, dx), 2);
  detail::run(device, make_map<InputGradientFormula<Act>>(partition, x_dy, dx), fill, workspace);
}

/// dx where the statistics are constants; x takes no part.
template <class DY, class T, class Out>
void scale_gradient(const AnyDevice& device, const View<DY>& dy, const View<Out>& dx, const FillScale<T>& fill,
                    Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return;
  const Inputs in(dy);
  const Partition partition = make_linear_partition(grid_of(in, dx), 1);
  detail::run(device, make_map<NormalizeFormula<Identity>>(partition, in, dx), fill, workspace);
}

/// collect_gradients and input_gradient, together where the cache allows.
template <class In, class T, class Act, class Out>
void differentiate_batch(const AnyDevice& device, const In& x_dy, const View<Out>& dx,
                         const FillInputGradient<T, Act>& fill, BasicGradientSums<StatisticOf<T>>& sums,
                         Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return clear(sums, dx.shape.channels);
  const Partition partition = make_partition(grid_of(x_dy, dx), 2);
  detail::run(
      device,
      make_reduction<GradientFormula<Act>>(partition, x_dy, fill.moments.mean, sums.dy.data(), sums.dy_centered.data()),
      FillNormalize<T, Act>{fill.moments, fill.parameters, fill.epsilon, fill.activation},
      make_map_after<InputGradientFormula<Act>>(partition, x_dy, dx), fill, workspace);
}

/// Sets the constants of an activation, from coefficient `first` on.
template <class Act, std::size_t first>
struct FillActivation {
  Act activation;

  template <class Compute, std::size_t N>
  void operator()(const std::array<Compute*, N>& to, Index begin, Index end) const {
    fill_constants(activation, to, first, begin, end);
  }
};

/// Sets the coefficients of SumInputGradientFormula for a range of channels.
template <class T, class Act>
struct FillSumInputGradient {
  using Formula = SumInputGradientFormula<Act>;
  FillInputGradient<T> fill;
  Act activation;

  void operator()(const std::array<ComputeOf<T>*, Formula::coefficients>& to, Index begin, Index end) const {
    std::array<ComputeOf<T>*, Formula::constants> without_constants;
    std::copy_n(to.begin(), without_constants.size(), without_constants.begin());
    fill(without_constants, begin, end);
    fill_constants(activation, to, Formula::constants, begin, end);
  }
  FillActivation<Act, SumGradientFormula<Act>::constants> of_sums() const { return {activation}; }
};

/// collect_gradients where a residual was added. `known` is x, what tells the slope, dy.
template <class In, class T, class Act>
void collect_sum_gradients(const AnyDevice& device, const In& known, const FillSumInputGradient<T, Act>& fill,
                           BasicGradientSums<StatisticOf<T>>& sums, Workspace<T>& workspace) {
  clear(sums, known.shape().channels);
  if (known.shape().size() == 0) return;
  const Partition partition = make_partition(grid_of(known), In::tensors);
  detail::run(device,
              make_reduction<SumGradientFormula<Act>>(partition, known, fill.fill.moments.mean, sums.dy.data(),
                                                      sums.dy_centered.data()),
              fill.of_sums(), workspace);
}

/// input_gradient and the gradient of the residual.
template <class In, class Out, class T, class Act>
void sum_input_gradient(const AnyDevice& device, const In& known, const Out& dx_dz,
                        const FillSumInputGradient<T, Act>& fill, Workspace<T>& workspace) {
  if (known.shape().size() == 0) return;
  const Partition partition = make_linear_partition(grid_of(known, dx_dz), In::tensors, tensors_of<Out>);
  detail::run(device, make_map<SumInputGradientFormula<Act>>(partition, known, dx_dz), fill, workspace);
}

/// collect_sum_gradients and sum_input_gradient, together where the cache allows.
template <class In, class Out, class T, class Act>
void differentiate_sum(const AnyDevice& device, const In& known, const Out& dx_dz,
                       const FillSumInputGradient<T, Act>& fill, BasicGradientSums<StatisticOf<T>>& sums,
                       Workspace<T>& workspace) {
  if (known.shape().size() == 0) return clear(sums, known.shape().channels);
  const Partition partition = make_partition(grid_of(known, dx_dz), In::tensors);
  detail::run(device,
              make_reduction<SumGradientFormula<Act>>(partition, known, fill.fill.moments.mean, sums.dy.data(),
                                                      sums.dy_centered.data()),
              fill.of_sums(), make_map_after<SumInputGradientFormula<Act>>(partition, known, dx_dz), fill, workspace);
}

}  // namespace batchnorm::detail
