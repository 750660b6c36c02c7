#pragma once

#include <utility>

#include "batchnorm/detail/passes.hpp"
#include "batchnorm/moments.hpp"

namespace batchnorm {

namespace detail {

/// Parameters of all channels; null where the layer has none.
template <class T>
struct Parameters {
  const ParameterOf<T>* gamma;
  const ParameterOf<T>* beta;
};

template <class V>
auto data_or_null(const V& vector) {
  return vector.size() == 0 ? nullptr : vector.data();
}

/// Sets what an activation is made of, the same for a range of channels.
template <class Act, class Arrays>
void fill_constants(const Act& activation, const Arrays& to, std::size_t first, Index begin, Index end) {
  using Compute = std::remove_pointer_t<typename Arrays::value_type>;
  for (const double value : activation.values()) {
    std::fill(to[first] + begin, to[first] + end, static_cast<Compute>(value));
    ++first;
  }
}

/// Sets the coefficients of NormalizeFormula for a range of channels.
template <class T, class Act = Identity>
struct FillNormalize {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  MomentsView<Statistic> moments;
  Parameters<T> parameters;
  double epsilon;
  Act activation = {};
  using Formula = NormalizeFormula<Act>;

  void operator()(const std::array<Compute*, Formula::coefficients>& to, Index begin, Index end) const {
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) {
      typename L::V mean, center, scale, gamma, beta;
      L::load(mean, moments.mean + c);
      moments.template inverse_std<L>(c, epsilon, scale);
      load_channels<L>(gamma, parameters.gamma, c, 1);
      load_channels<L>(beta, parameters.beta, c, 0);
      scale *= gamma;
      store_channels<L>(to[Formula::center] + c, mean);
      load_channels<L>(center, to[Formula::center] + c);
      store_channels<L>(to[Formula::scale] + c, scale);
      // The digits of the mean that Compute cannot hold go into the shift.
      store_channels<L>(to[Formula::shift] + c, beta - (mean - center) * scale);
    });
    fill_constants(activation, to, Formula::constants, begin, end);
  }
};

template <class Statistic>
void prepare(BasicMoments<Statistic>& moments, const Shape& shape) {
  moments.count = Statistic(static_cast<double>(shape.count()));
  moments.mean.setZero(shape.channels);
  moments.m2.setZero(shape.channels);
}

template <Device D, class T>
void collect_moments(const D& device, const View<const T>& x, BasicMoments<StatisticOf<T>>& moments,
                     Workspace<T>& workspace) {
  prepare(moments, x.shape);
  if (x.shape.size() == 0) return;
  const Inputs in(x);
  const Partition partition = make_partition(grid_of(in), 1);
  run(device, make_reduction<MomentFormula>(partition, in, nullptr, moments.mean.data(), moments.m2.data()),
      NoCoefficients{}, workspace);
}

/// The formula for x, or for x and z.
template <class Act, class In>
using NormalizeFormulaOf = std::conditional_t<In::count == 1, NormalizeFormula<Act>, NormalizeAddFormula<Act>>;

template <Device D, class In, class T, class Act, class Out>
void normalize(const D& device, const In& in, const View<Out>& y, const FillNormalize<T, Act>& fill,
               Workspace<T>& workspace) {
  if (y.shape.size() == 0) return;
  const Partition partition = make_linear_partition(grid_of(in, y), In::count);
  run(device, make_map<NormalizeFormulaOf<Act, In>>(partition, in, y), fill, workspace);
}

/// collect_moments and normalize, together where the cache allows.
template <Device D, class In, class T, class Act, class Out>
void normalize_batch(const D& device, const In& in, const View<Out>& y, BasicMoments<StatisticOf<T>>& moments,
                     const Parameters<T>& parameters, double epsilon, const Act& activation, Workspace<T>& workspace) {
  prepare(moments, y.shape);
  if (y.shape.size() == 0) return;
  const Partition partition = make_partition(grid_of(in, y), In::count);
  const Inputs x(in.template get<0>());
  run(device, NoMap{}, NoCoefficients{},
      make_reduction<MomentFormula>(partition, x, nullptr, moments.mean.data(), moments.m2.data()), NoCoefficients{},
      make_map<NormalizeFormulaOf<Act, In>>(partition_after(partition, In::count), in, y),
      FillNormalize<T, Act>{view_of(moments), parameters, epsilon, activation}, workspace);
}

/// The workspace that was given, or one for this call.
template <class T>
class WorkspaceOrOwn {
 public:
  explicit WorkspaceOrOwn(Workspace<T>* given) : given_(given) {}
  Workspace<T>& get() { return given_ != nullptr ? *given_ : own_; }

 private:
  Workspace<T>* given_;
  Workspace<T> own_;
};

}  // namespace detail

/// Count, mean and sum of squared deviations of each channel of x: the statistics of batch normalization.
///
/// Shapes:   x of rank 2 or more, channels on options.axis; `moments` is resized to one entry per channel.
/// Computes: mean = sum x / count, m2 = sum (x - mean)^2, each in one reading of x. An x without values gives count 0.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error when the axis is out of range; then nothing has been written.
/// Source:   Chan, Golub and LeVeque 1979.
template <Device D, class X>
void collect_moments(const D& device, const X& x, BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                     const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  detail::require_tensor<X>();
  const Index axis = detail::resolve_axis<X>("collect_moments", options.axis);
  detail::check_memory("collect_moments", "x", x);
  detail::WorkspaceOrOwn<T> memory(workspace);
  detail::collect_moments(device, detail::View<const T>(detail::view_of(x, axis)), moments, memory.get());
}

/// Normalizes x with the given moments: those of its own batch, of all ranks, or RunningStatistics::moments().
///
/// Shapes:   x, y any rank and equal, y is resized where it owns its memory; moments, gamma, beta one entry per
///           channel; an empty gamma stands for 1, an empty beta for 0. The scalars of x and y are equal, or any of
///           float, Eigen::bfloat16 and Eigen::half.
/// Computes: y = gamma * (x - mean) * inv_std + beta, inv_std = 1 / sqrt(var + epsilon). Where var + epsilon is 0,
///           y = beta.
/// Aliasing: y may be x. No other overlap.
/// Threads:  runs on `device`; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit; then nothing has been written.
/// Source:   Ioffe and Szegedy 2015, algorithm 1.
template <Device D, class X, class Y>
void normalize(const D& device, const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& beta, Y&& y,
               const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "normalize";
  detail::require_tensor<X>();
  detail::require_output<X, Y>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::View<const T> x_view = detail::view_of(x, axis);
  const Index channels = x_view.shape.channels;
  detail::check_epsilon(function, options.epsilon);
  detail::check_moments(function, moments, x_view.shape);
  detail::check_optional_length(function, "gamma", gamma.size(), channels);
  detail::check_optional_length(function, "beta", beta.size(), channels);
  detail::check_output(function, "y", y, x);
  detail::check_overlap(function, "y", y, "x", x);
  detail::resize_like(y, x);
  detail::WorkspaceOrOwn<T> memory(workspace);
  detail::normalize(
      device, detail::Inputs(x_view), detail::view_of(y, axis),
      detail::FillNormalize<T>{
          detail::view_of(moments), {detail::data_or_null(gamma), detail::data_or_null(beta)}, options.epsilon},
      memory.get());
}

/// On the calling thread.
template <class X>
void collect_moments(const X& x, BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments, const Options& options = {},
                     Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  collect_moments(Eigen::DefaultDevice{}, x, moments, options, workspace);
}

/// On the calling thread.
template <class X, class Y>
void normalize(const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& gamma,
               const Eigen::Ref<const Vector<ParameterOf<detail::ScalarOf<X>>>>& beta, Y&& y,
               const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  normalize(Eigen::DefaultDevice{}, x, moments, gamma, beta, std::forward<Y>(y), options, workspace);
}

}  // namespace batchnorm
