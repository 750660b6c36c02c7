#pragma once

#include <utility>

#include "batchnorm/detail/gradients.hpp"

// Conditional batch normalization: the statistics are those of the batch, gamma and beta those of each sample.

namespace batchnorm {

/// A row for each sample, a column for each channel.
template <class T>
using PerSample = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace detail {

/// The slowest axis of a tensor counts its samples.
template <class X>
constexpr Index sample_axis() {
  return TraitsOf<X>::row_major ? 0 : TraitsOf<X>::rank - 1;
}

template <class X>
void check_sample_axis(const char* function, Index axis) {
  if (axis == sample_axis<X>())
    fail(function,
         "the channels are on the slowest axis, which counts the samples (row major: the first, column major: the "
         "last)");
}

template <class T>
void check_per_sample(const char* function, const char* name, const Eigen::Ref<const PerSample<T>>& values,
                      Index samples, Index channels) {
  if (values.size() == 0 || (values.rows() == samples && values.cols() == channels)) return;
  const std::array<Index, 2> dims{values.rows(), values.cols()}, wanted{samples, channels};
  fail_dimensions(function, name, dims, "samples and channels are", wanted);
}

/// One sample of a tensor.
template <class T>
View<T> sample_of(View<T> view, Index sample, Index samples) {
  view.shape.outer /= samples;
  view.data += sample * view.shape.outer * view.outer_stride;
  return view;
}

template <class... T>
Inputs<T...> sample_of(const Inputs<T...>& in, Index sample, Index samples) {
  return std::apply([&](const auto&... view) { return Inputs(sample_of(view, sample, samples)...); }, in.views);
}

template <class T>
const T* row_or_null(const Eigen::Ref<const PerSample<T>>& values, Index row) {
  return values.size() == 0 ? nullptr : values.data() + row * values.outerStride();
}

/// Sets the coefficients of InputGradientFormula for the samples of one gamma: with the sums of gamma * dy over all
/// samples, dx = gamma inv_std dy - inv_std [sum(gamma dy) / n + xhat inv_std sum(gamma dy (x - mean)) / n].
template <class T>
struct FillSampleGradient {
  using Statistic = StatisticOf<T>;
  using Compute = ComputeOf<T>;
  using Formula = InputGradientFormula<Identity>;
  MomentsView<Statistic> moments;
  const BasicGradientSums<Statistic>& scaled_sums;
  const ParameterOf<T>* gamma;
  double epsilon;

  void operator()(const std::array<Compute*, Formula::coefficients>& to, Index begin, Index end) const {
    const Statistic inv_count = Statistic(1) / moments.count;
    for_channels<Statistic>(begin, end, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
      typename L::V mean, inv_std, scale, dy, dy_centered;
      L::load(mean, moments.mean + c);
      L::load(dy, scaled_sums.dy.data() + c);
      L::load(dy_centered, scaled_sums.dy_centered.data() + c);
      moments.template inverse_std<L>(c, epsilon, inv_std);
      load_channels<L>(scale, gamma, c, 1);
      const typename L::V xhat_scale = -inv_std * (inv_std * dy_centered * inv_count);
      const typename L::V shift = -inv_std * (dy * inv_count);
      scale *= inv_std;
      store_input_gradient<L>(to, c, mean, inv_std, scale, xhat_scale, shift);
    });
  }
};

template <class G, class X, class DY, class Gamma, class DX>
void check_per_sample_gradient(const char* function, const char* name, const G& gradient, const X& x, const DY& dy,
                               const Gamma& gamma, const DX& dx) {
  check_apart(function, name, gradient, "x", x);
  check_apart(function, name, gradient, "dy", dy);
  check_apart(function, name, gradient, "gamma", gamma);
  check_apart(function, name, gradient, "dx", dx);
}

/// The gradients of each sample's gamma and beta, and the sums of gamma * dy over all samples.
template <class In, class T>
void collect_gradients_per_sample(const AnyDevice& device, const In& x_dy, Index samples,
                                  const MomentsView<StatisticOf<T>>& moments, double epsilon,
                                  const Eigen::Ref<const PerSample<ParameterOf<T>>>& gamma,
                                  PerSample<ParameterOf<T>>& gamma_gradient, PerSample<ParameterOf<T>>& beta_gradient,
                                  BasicGradientSums<StatisticOf<T>>& scaled_sums, Workspace<T>& workspace) {
  using Statistic = StatisticOf<T>;
  const Index channels = x_dy.shape().channels;
  BasicGradientSums<Statistic> sums(channels);
  for (Index n = 0; n < samples; ++n) {
    collect_gradients(device, sample_of(x_dy, n, samples), FillNormalize<T>{moments, {}, epsilon}, sums, workspace);
    add_gamma_gradient(moments, sums.dy_centered.data(), epsilon, gamma_gradient.row(n).data(), channels);
    const ParameterOf<T>* const of_sample = row_or_null(gamma, n);
    for (Index c = 0; c < channels; ++c) {
      const Statistic factor = of_sample == nullptr ? Statistic(1) : Statistic(of_sample[c]);
      beta_gradient(n, c) = static_cast<ParameterOf<T>>(sums.dy[c]);
      scaled_sums.dy[c] += factor * sums.dy[c];
      scaled_sums.dy_centered[c] += factor * sums.dy_centered[c];
    }
  }
}

template <class In, class Out, class T>
void input_gradient_per_sample(const AnyDevice& device, const In& x_dy, const View<Out>& dx, Index samples,
                               const MomentsView<StatisticOf<T>>& moments, double epsilon,
                               const Eigen::Ref<const PerSample<ParameterOf<T>>>& gamma,
                               const BasicGradientSums<StatisticOf<T>>& scaled_sums, Workspace<T>& workspace) {
  if (dx.shape.size() == 0) return;
  for (Index n = 0; n < samples; ++n) {
    const auto of_sample = sample_of(x_dy, n, samples);
    const auto to = sample_of(dx, n, samples);
    const Partition partition = make_linear_partition(grid_of(of_sample, to), 2);
    detail::run(device, make_map<InputGradientFormula<Identity>>(partition, of_sample, to),
                FillSampleGradient<T>{moments, scaled_sums, row_or_null(gamma, n), epsilon}, workspace);
  }
}

}  // namespace detail

/// normalize with a gamma and a beta for each sample.
///
/// Shapes:   x, y any rank and equal, samples on the slowest axis (the first one in row-major order), y is resized
///           where it owns its memory; moments one entry per channel; gamma and beta samples x channels, an empty gamma
///           stands for 1, an empty beta for 0.
/// Computes: y = gamma * (x - mean) * inv_std + beta.
/// Aliasing: y may be x. No other overlap.
/// Threads:  runs on `device`, one sample after another; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit; then nothing has been written.
/// Source:   de Vries et al. 2017, Modulating early visual processing by language.
template <Device D, class X, class Y>
void normalize_per_sample(const D& device, const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                          const Eigen::Ref<const PerSample<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                          const Eigen::Ref<const PerSample<ParameterOf<detail::ScalarOf<X>>>>& beta, Y&& y,
                          const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "normalize_per_sample";
  detail::require_tensor<X>();
  detail::require_output<X, Y>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::View<const T> x_view = detail::view_of(x, axis);
  const Index samples = detail::dimensions_of(x)[static_cast<std::size_t>(detail::sample_axis<X>())];
  detail::check_sample_axis<X>(function, axis);
  detail::check_epsilon(function, options.epsilon);
  detail::check_moments(function, moments, x_view.shape);
  detail::check_per_sample(function, "gamma", gamma, samples, x_view.shape.channels);
  detail::check_per_sample(function, "beta", beta, samples, x_view.shape.channels);
  detail::check_output(function, "y", y, x);
  detail::check_overlap(function, "y", y, "x", x);
  detail::check_apart(function, "y", y, "gamma", gamma);
  detail::check_apart(function, "y", y, "beta", beta);
  detail::resize_like(y, x);
  const auto y_view = detail::view_of(y, axis);
  detail::WorkspaceOrOwn<T> memory(workspace);
  for (Index n = 0; n < samples; ++n) {
    const detail::FillNormalize<T> fill{
        detail::view_of(moments), {detail::row_or_null(gamma, n), detail::row_or_null(beta, n)}, options.epsilon};
    detail::normalize(device, detail::Inputs(detail::sample_of(x_view, n, samples)),
                      detail::sample_of(y_view, n, samples), fill, memory.get());
  }
}

/// The gradients of normalize_per_sample with the moments of x itself.
///
/// Shapes:   x, dy, dx as x and y there; gamma_gradient and beta_gradient are resized to samples x channels.
/// Computes: of each sample dgamma = sum(dy * xhat), dbeta = sum(dy); with means over the whole batch,
///           dx = inv_std * (gamma * dy - mean(gamma * dy) - xhat * mean(gamma * dy * xhat)).
/// Aliasing: dx may be dy, or x. No other overlap.
/// Threads:  runs on `device`, one sample after another; the same bits for any number of threads.
/// Throws:   batchnorm::Error on a shape or option that does not fit, or on moments of another count than that of x;
///           then nothing has been written.
template <Device D, class X, class DY, class DX>
void backward_per_sample(const D& device, const X& x, const DY& dy,
                         const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                         const Eigen::Ref<const PerSample<ParameterOf<detail::ScalarOf<X>>>>& gamma, DX&& dx,
                         PerSample<ParameterOf<detail::ScalarOf<X>>>& gamma_gradient,
                         PerSample<ParameterOf<detail::ScalarOf<X>>>& beta_gradient, const Options& options = {},
                         Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  using T = detail::ScalarOf<X>;
  constexpr const char* function = "backward_per_sample";
  detail::require_tensor<X>();
  detail::require_input<X, DY>();
  detail::require_output<X, DX>();
  const Index axis = detail::resolve_axis<X>(function, options.axis);
  const detail::Inputs x_dy(detail::view_of(x, axis), detail::view_of(dy, axis));
  const Index samples = detail::dimensions_of(x)[static_cast<std::size_t>(detail::sample_axis<X>())];
  const Index channels = x_dy.shape().channels;
  detail::check_sample_axis<X>(function, axis);
  detail::check_epsilon(function, options.epsilon);
  detail::check_same_dimensions(function, "dy", dy, x);
  detail::check_moments_of_x(function, moments, x_dy.shape());
  detail::check_per_sample(function, "gamma", gamma, samples, channels);
  detail::check_input_gradient(function, "x", x, dy, dx);
  detail::check_apart(function, "dx", dx, "gamma", gamma);
  detail::check_per_sample_gradient(function, "gamma_gradient", gamma_gradient, x, dy, gamma, dx);
  detail::check_per_sample_gradient(function, "beta_gradient", beta_gradient, x, dy, gamma, dx);
  detail::check_apart(function, "beta_gradient", beta_gradient, "gamma_gradient", gamma_gradient);
  detail::resize_like(dx, x);
  gamma_gradient.setZero(samples, channels);
  beta_gradient.setZero(samples, channels);
  detail::WorkspaceOrOwn<T> memory(workspace);
  BasicGradientSums<StatisticOf<T>> scaled_sums(channels);
  detail::collect_gradients_per_sample(device, x_dy, samples, detail::view_of(moments), options.epsilon, gamma,
                                       gamma_gradient, beta_gradient, scaled_sums, memory.get());
  detail::input_gradient_per_sample(device, x_dy, detail::view_of(dx, axis), samples, detail::view_of(moments),
                                    options.epsilon, gamma, scaled_sums, memory.get());
}

/// On the calling thread.
template <class X, class Y>
void normalize_per_sample(const X& x, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                          const Eigen::Ref<const PerSample<ParameterOf<detail::ScalarOf<X>>>>& gamma,
                          const Eigen::Ref<const PerSample<ParameterOf<detail::ScalarOf<X>>>>& beta, Y&& y,
                          const Options& options = {}, Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  normalize_per_sample(Eigen::DefaultDevice{}, x, moments, gamma, beta, std::forward<Y>(y), options, workspace);
}

/// On the calling thread.
template <class X, class DY, class DX>
void backward_per_sample(const X& x, const DY& dy, const BasicMoments<StatisticOf<detail::ScalarOf<X>>>& moments,
                         const Eigen::Ref<const PerSample<ParameterOf<detail::ScalarOf<X>>>>& gamma, DX&& dx,
                         PerSample<ParameterOf<detail::ScalarOf<X>>>& gamma_gradient,
                         PerSample<ParameterOf<detail::ScalarOf<X>>>& beta_gradient, const Options& options = {},
                         Workspace<detail::ScalarOf<X>>* workspace = nullptr) {
  backward_per_sample(Eigen::DefaultDevice{}, x, dy, moments, gamma, std::forward<DX>(dx), gamma_gradient,
                      beta_gradient, options, workspace);
}

}  // namespace batchnorm
