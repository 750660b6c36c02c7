#pragma once

#include "batchnorm/detail/gradients.hpp"

// Backward from the output alone, where the activation can be inverted (Rota Bulo, Porzi and Kontschieder 2018).

namespace batchnorm::detail {

template <class Parameter, class Act>
void check_invertible(const char* function, const Vector<Parameter>& gamma, const Act& activation) {
  for (Index c = 0; c < gamma.size(); ++c) {
    if (gamma[c] == Parameter(0)) fail(function, "gamma[" + std::to_string(c) + "] is 0; xhat cannot be had from y");
  }
  for (const double value : activation.values()) {
    if (value == 0) fail(function, "the activation has slope 0; it cannot be inverted");
  }
}

/// Sets the coefficients of InputGradientOfOutputFormula for a range of channels: v - beta stands for x - mean, and
/// 1 / gamma for inv_std. Without sums the statistics are constants.
template <class T, class Act>
struct FillInputGradientOfOutput {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  using Formula = InputGradientOfOutputFormula<Act>;
  using Base = InputGradientFormula<Identity>;
  MomentsView<Statistic> moments;
  const BasicGradientSums<Statistic>* sums;
  Parameters<T> parameters;
  double epsilon;
  Act activation;

  Statistic gamma(Index c) const { return parameters.gamma == nullptr ? Statistic(1) : Statistic(parameters.gamma[c]); }
  Statistic beta(Index c) const { return parameters.beta == nullptr ? Statistic(0) : Statistic(parameters.beta[c]); }
  Statistic inv_std(Index c) const {
    Statistic result;
    moments.template inverse_std<Lanes<Statistic, Statistic, 0>>(c, epsilon, result);
    return result;
  }

  void operator()(const std::array<Compute*, Formula::coefficients>& to, Index begin, Index end) const {
    for (Index c = begin; c < end; ++c) {
      const Statistic scale = gamma(c) * inv_std(c);
      const Statistic dy_mean = sums == nullptr ? Statistic(0) : Statistic(sums->dy[c] / moments.count);
      const Statistic xhat_mean =
          sums == nullptr ? Statistic(0) : Statistic(sums->dy_centered[c] * inv_std(c) / moments.count);
      to[Base::center][c] = static_cast<Compute>(beta(c));
      to[Base::inv_std][c] = static_cast<Compute>(Statistic(1) / gamma(c));
      to[Base::scale][c] = static_cast<Compute>(scale);
      to[Base::xhat_scale][c] = static_cast<Compute>(-scale * xhat_mean);
      to[Base::shift][c] = static_cast<Compute>(-scale * dy_mean);
    }
    fill_constants(activation, to, Formula::constants, begin, end);
  }
};

/// collect_gradients from the output. `centers` is scratch.
template <class In, class T, class Act>
void collect_gradients_of_output(const AnyDevice& device, const In& y_dy, const FillInputGradientOfOutput<T, Act>& fill,
                                 BasicGradientSums<StatisticOf<T>>& sums, Vector<StatisticOf<T>>& centers,
                                 Workspace<T>& workspace) {
  using Statistic = StatisticOf<T>;
  const Shape& shape = y_dy.shape();
  clear(sums, shape.channels);
  if (shape.size() == 0) return;
  centers.resize(shape.channels);
  for (Index c = 0; c < shape.channels; ++c) centers[c] = fill.beta(c);
  using Formula = OutputGradientFormula<Act>;
  const Partition partition = make_partition(grid_of(y_dy), 2);
  detail::run(device, make_reduction<Formula>(partition, y_dy, centers.data(), sums.dy.data(), sums.dy_centered.data()),
              FillActivation<Act, Formula::constants>{fill.activation}, workspace);
  // sum g (v - beta) = gamma inv_std sum g (x - mean).
  for (Index c = 0; c < shape.channels; ++c) {
    const Statistic scale = fill.gamma(c) * fill.inv_std(c);
    sums.dy_centered[c] = scale == Statistic(0) ? Statistic(0) : Statistic(sums.dy_centered[c] / scale);
  }
}

template <class In, class T, class Act, class Out>
void input_gradient_of_output(const AnyDevice& device, const In& y_dy, const View<Out>& dx,
                              const FillInputGradientOfOutput<T, Act>& fill, Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return;
  const Partition partition = make_linear_partition(grid_of(y_dy, dx), 2);
  detail::run(device, make_map<InputGradientOfOutputFormula<Act>>(partition, y_dy, dx), fill, workspace);
}

}  // namespace batchnorm::detail
