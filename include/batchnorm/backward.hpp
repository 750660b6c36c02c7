#pragma once

#include <utility>

#include "batchnorm/forward.hpp"

namespace batchnorm {

namespace detail {

/// Adds the gradient of gamma, sum of dy * (x - mean) * inv_std, to that of every channel.
template <class Statistic, class Parameter>
void add_gamma_gradient(const MomentsView<Statistic>& moments, const Statistic* dy_centered, double epsilon,
                        Parameter* to, Index channels) {
  for_channels<Statistic>(0, channels, [&]<class L>(L, Index c) {
    typename L::V sum, inv_std, gradient;
    L::load(sum, dy_centered + c);
    moments.template inverse_std<L>(c, epsilon, inv_std);
    load_channels<L>(gradient, to + c);
    store_channels<L>(to + c, gradient + sum * inv_std);
  });
}

}  // namespace detail

/// What the gradients need of a whole batch, per channel. The sums of two parts add up to those of the whole.
template <class Statistic>
struct BasicGradientSums {
  Vector<Statistic> dy;           // sum of dy: the gradient of beta
  Vector<Statistic> dy_centered;  // sum of dy * (x - mean)

  BasicGradientSums() = default;
  explicit BasicGradientSums(Index channels)
      : dy(Vector<Statistic>::Zero(channels)), dy_centered(Vector<Statistic>::Zero(channels)) {}

  Index channels() const { return dy.size(); }

  /// Throws: batchnorm::Error when the numbers of channels differ; then nothing has been written.
  void merge(const BasicGradientSums& other) {
    if (channels() == 0) *this = BasicGradientSums(other.channels());
    detail::check_length("merge", "other.dy", other.dy.size(), channels());
    detail::check_length("merge", "other.dy_centered", other.dy_centered.size(), channels());
    detail::check_length("merge", "dy_centered", dy_centered.size(), channels());
    dy += other.dy;
    dy_centered += other.dy_centered;
  }

  /// sum of dy * (x - mean) * inv_std.
  ///
  /// Throws: batchnorm::Error when the numbers of channels differ.
  Vector<Statistic> gamma_gradient(const BasicMoments<Statistic>& moments, double epsilon) const {
    detail::check_length("gamma_gradient", "dy_centered", dy_centered.size(), channels());
    detail::check_length("gamma_gradient", "moments.m2", moments.m2.size(), channels());
    Vector<Statistic> gradient = Vector<Statistic>::Zero(channels());
    detail::add_gamma_gradient(detail::view_of(moments), dy_centered.data(), epsilon, gradient.data(), channels());
    return gradient;
  }
};

using GradientSums = BasicGradientSums<double>;

namespace detail {

/// Sets the coefficients of InputGradientFormula for a range of channels:
/// dx = gamma inv_std [dy - sum(dy) / n - xhat inv_std sum(dy (x - mean)) / n].
template <class T>
struct FillInputGradient {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  MomentsView<Statistic> moments;
  const BasicGradientSums<Statistic>& sums;
  const ParameterOf<T>* gamma;
  double epsilon;

  void operator()(const std::array<Compute*, InputGradientFormula::coefficients>& to, Index begin, Index end) const {
    const Statistic inv_count = Statistic(1) / moments.count;
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) {
      typename L::V mean, center, inv_std, scale, dy, dy_centered;
      L::load(mean, moments.mean + c);
      L::load(dy, sums.dy.data() + c);
      L::load(dy_centered, sums.dy_centered.data() + c);
      moments.template inverse_std<L>(c, epsilon, inv_std);
      load_channels<L>(scale, gamma, c, 1);
      scale *= inv_std;
      const typename L::V xhat_scale = -scale * (inv_std * dy_centered * inv_count);
      store_channels<L>(to[InputGradientFormula::center] + c, mean);
      load_channels<L>(center, to[InputGradientFormula::center] + c);
      store_channels<L>(to[InputGradientFormula::inv_std] + c, inv_std);
      store_channels<L>(to[InputGradientFormula::scale] + c, scale);
      store_channels<L>(to[InputGradientFormula::xhat_scale] + c, xhat_scale);
      // The digits of the mean that Compute cannot hold go into the shift.
      store_channels<L>(to[InputGradientFormula::shift] + c,
                        -scale * (dy * inv_count) - (mean - center) * inv_std * xhat_scale);
    });
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

  void operator()(const std::array<Compute*, NormalizeFormula::coefficients>& to, Index begin, Index end) const {
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) {
      typename L::V scale, inv_std;
      load_channels<L>(scale, gamma, c, 1);
      moments.template inverse_std<L>(c, epsilon, inv_std);
      store_channels<L>(to[NormalizeFormula::scale] + c, scale * inv_std);
    });
    std::fill(to[NormalizeFormula::center] + begin, to[NormalizeFormula::center] + end, Compute(0));
    std::fill(to[NormalizeFormula::shift] + begin, to[NormalizeFormula::shift] + end, Compute(0));
  }
};

template <class Statistic>
void clear(BasicGradientSums<Statistic>& sums, Index channels) {
  sums.dy.setZero(channels);
  sums.dy_centered.setZero(channels);
}

template <class T>
using PairOf = std::array<View<const T>, 2>;

template <Device D, class T>
void collect_gradients(const D& device, const PairOf<T>& x_dy, const MomentsView<StatisticOf<T>>& moments,
                       BasicGradientSums<StatisticOf<T>>& sums, Workspace<T>& workspace) {
  const Shape& shape = x_dy[0].shape;
  clear(sums, shape.channels);
  if (shape.size() == 0) return;
  const Partition partition = make_partition<T>(grid_of(x_dy), 2);
  run(device, partition,
      Reduction<T, GradientFormula>(partition, x_dy, moments.mean, sums.dy.data(), sums.dy_centered.data()), workspace);
}

template <Device D, class T>
void input_gradient(const D& device, const PairOf<T>& x_dy, const View<T>& dx, const FillInputGradient<T>& fill,
                    Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return;
  const Partition partition = make_partition<T>(grid_of(std::array<View<const T>, 3>{x_dy[0], x_dy[1], dx}), 2);
  run(device, partition, Map<T, InputGradientFormula>(partition, x_dy, dx), fill, workspace);
}

/// dx where the statistics are constants; x takes no part.
template <Device D, class T>
void scale_gradient(const D& device, const View<const T>& dy, const View<T>& dx, const FillScale<T>& fill,
                    Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return;
  const Partition partition = make_partition<T>(grid_of(std::array<View<const T>, 2>{dy, dx}), 1);
  run(device, partition, Map<T, NormalizeFormula>(partition, {dy}, dx), fill, workspace);
}

/// collect_gradients and input_gradient, together where the cache allows.
template <Device D, class T>
void differentiate_batch(const D& device, const PairOf<T>& x_dy, const View<T>& dx, const FillInputGradient<T>& fill,
                         BasicGradientSums<StatisticOf<T>>& sums, Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return clear(sums, dx.shape.channels);
  const Partition partition = make_partition<T>(grid_of(std::array<View<const T>, 3>{x_dy[0], x_dy[1], dx}), 2);
  run(device, partition,
      Reduction<T, GradientFormula>(partition, x_dy, fill.moments.mean, sums.dy.data(), sums.dy_centered.data()),
      Map<T, InputGradientFormula>(partition, x_dy, dx), fill, workspace);
}

}  // namespace detail

/// The sums of a batch that its gradients need.
///
/// Shapes:   x, dy any rank and equal; moments one entry per channel; `sums` is resized to that.
/// Computes: sums.dy = sum dy, sums.dy_centered = sum dy * (x - mean).
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit; then nothing has been written.
template <Device D, class X, class DY>
void collect_gradients(const D& device, const X& x, const DY& dy,
                       const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                       BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, const Options& options = {},
                       Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "collect_gradients";
  detail::require_tensor<X>();
  detail::require_same_layout<X, DY>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::PairOf<T> views{detail::view_of(x, axis), detail::view_of(dy, axis)};
  detail::check_same_dimensions(function, "dy", dy, x);
  detail::check_moments(function, moments, views[0].shape);
  detail::WorkspaceOrOwn<T> memory(workspace);
  detail::collect_gradients(device, views, detail::view_of(moments), sums, memory.get());
}

/// The gradient of x, from sums over the whole batch that `moments` describes.
///
/// Shapes:   x, dy, dx any rank and equal, dx is resized where it owns its memory; moments, sums, gamma one entry per
///           channel; an empty gamma stands for 1.
/// Computes: dx = gamma * inv_std * (dy - sums.dy / n - (x - mean) * inv_std^2 * sums.dy_centered / n) with
///           n = moments.count. Sums of zero give the gradient where mean and var are constants.
/// Aliasing: dx may be dy, or x. No other overlap.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit; then nothing has been written.
/// Source:   Ioffe and Szegedy 2015, section 3.
template <Device D, class X, class DY, class DX>
void input_gradient(const D& device, const X& x, const DY& dy,
                    const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                    const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                    const BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, DX&& dx,
                    const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "input_gradient";
  detail::require_tensor<X>();
  detail::require_same_layout<X, DY>();
  detail::require_output<X, DX>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::PairOf<T> views{detail::view_of(x, axis), detail::view_of(dy, axis)};
  const Index channels = views[0].shape.channels;
  detail::check_epsilon(function, options.epsilon);
  detail::check_same_dimensions(function, "dy", dy, x);
  detail::check_moments(function, moments, views[0].shape);
  detail::check_optional_length(function, "gamma", gamma.size(), channels);
  detail::check_length(function, "sums.dy", sums.dy.size(), channels);
  detail::check_length(function, "sums.dy_centered", sums.dy_centered.size(), channels);
  detail::check_output(function, "dx", dx, x);
  detail::check_overlap(function, "dx", dx, "x", x);
  detail::check_overlap(function, "dx", dx, "dy", dy);
  detail::resize_like(dx, x);
  detail::WorkspaceOrOwn<T> memory(workspace);
  const detail::FillInputGradient<T> fill{detail::view_of(moments), sums, detail::data_or_null(gamma), options.epsilon};
  detail::input_gradient(device, views, detail::view_of(dx, axis), fill, memory.get());
}

/// On the calling thread.
template <class X, class DY>
void collect_gradients(const X& x, const DY& dy, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                       BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, const Options& options = {},
                       Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  collect_gradients(Eigen::DefaultDevice{}, x, dy, moments, sums, options, workspace);
}

/// On the calling thread.
template <class X, class DY, class DX>
void input_gradient(const X& x, const DY& dy, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                    const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                    const BasicGradientSums<StatisticOf<detail::ScalarOf<X>>>& sums, DX&& dx,
                    const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  input_gradient(Eigen::DefaultDevice{}, x, dy, moments, gamma, sums, std::forward<DX>(dx), options, workspace);
}

}  // namespace batchnorm
