#pragma once

#include "batchnorm/detail/run.hpp"
#include "batchnorm/moments.hpp"

// The passes of a forward.

namespace batchnorm::detail {

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
  Statistic* inv_std = nullptr;  // where it is kept for a backward, if anywhere
  using Formula = NormalizeFormula<Act>;

  void operator()(const std::array<Compute*, Formula::coefficients>& to, Index begin, Index end) const {
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
      typename L::V mean, center, scale, gamma, beta;
      L::load(mean, moments.mean + c);
      moments.template inverse_std<L>(c, epsilon, scale);
      if (inv_std != nullptr) L::store(inv_std + c, scale);
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

template <class T>
void collect_moments(const AnyDevice& device, const View<const T>& x, BasicMoments<StatisticOf<T>>& moments,
                     Workspace<T>& workspace) {
  prepare(moments, x.shape);
  if (x.shape.size() == 0) return;
  const Inputs in(x);
  const Partition partition = make_partition(grid_of(in), 1);
  detail::run(device, make_reduction<MomentFormula>(partition, in, nullptr, moments.mean.data(), moments.m2.data()),
              NoCoefficients{}, workspace);
}

/// The formula for x, or for x and z.
template <class Act, class In>
using NormalizeFormulaOf = std::conditional_t<In::count == 1, NormalizeFormula<Act>, NormalizeAddFormula<Act>>;

template <class In, class T, class Act, class Out>
void normalize(const AnyDevice& device, const In& in, const Out& out, const FillNormalize<T, Act>& fill,
               Workspace<T>& workspace) {
  if (in.shape().size() == 0) return;
  const Partition partition = make_linear_partition(grid_of(in, out), In::tensors, tensors_of<Out>);
  detail::run(device, make_map<NormalizeFormulaOf<Act, In>>(partition, in, out), fill, workspace);
}

/// collect_moments and normalize, together where the cache allows. Keeps inv_std where that is not null.
template <class In, class T, class Act, class Out>
void normalize_batch(const AnyDevice& device, const In& in, const Out& out, BasicMoments<StatisticOf<T>>& moments,
                     const Parameters<T>& parameters, double epsilon, const Act& activation, StatisticOf<T>* inv_std,
                     Workspace<T>& workspace) {
  prepare(moments, in.shape());
  if (in.shape().size() == 0) return;
  const Inputs x(in.template get<0>());  // z is read once
  const Partition partition = make_partition(grid_of(in, out), x.tensors);
  detail::run(device, make_reduction<MomentFormula>(partition, x, nullptr, moments.mean.data(), moments.m2.data()),
              NoCoefficients{}, make_map_after<NormalizeFormulaOf<Act, In>>(partition, in, out),
              FillNormalize<T, Act>{view_of(moments), parameters, epsilon, activation, inv_std}, workspace);
}

}  // namespace batchnorm::detail
