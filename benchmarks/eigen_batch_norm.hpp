#pragma once

#include <unsupported/Eigen/CXX11/Tensor>

namespace eigen_expressions {

/// as_written: one expression for each sum, as its formula says. fastest, of those tried: a broadcast is written to
/// memory before it is summed, and what is summed over is known when it is compiled. Inference has no sums.
enum class Spelling { as_written, fastest };

/// Batch normalization in Eigen's tensor expressions. Every layout is outer x channels x inner, and values per channel
/// are evaluated once.
template <class T, class Device, Spelling spelling>
class BatchNorm {
 public:
  using Index = Eigen::Index;
  using Tensor = Eigen::Tensor<T, 3, Eigen::RowMajor>;
  using Input = Eigen::TensorMap<const Tensor>;
  using Output = Eigen::TensorMap<Tensor>;
  using PerChannel = Eigen::Tensor<T, 1, Eigen::RowMajor>;

  explicit BatchNorm(Index channels)
      : gamma(channels),
        beta(channels),
        running_mean(channels),
        running_var(channels),
        gamma_gradient(channels),
        beta_gradient(channels),
        mean_(channels),
        inv_std_(channels),
        sum_(channels) {
    gamma.setConstant(T(1));
    beta.setZero();
    running_mean.setZero();
    running_var.setConstant(T(1));
    gamma_gradient.setZero();
    beta_gradient.setZero();
  }

  void forward(const Device& device, const Input& x, Output& y) {
    const T count = values_per_channel(x);
    sum_per_channel(device, x, mean_);
    mean_ = mean_ / count;
    if constexpr (spelling == Spelling::fastest) {
      y.device(device) = x - spread(mean_, x);
      sum_per_channel(device, y.square(), sum_);
    } else {
      sum_per_channel(device, (x - spread(mean_, x)).square(), sum_);
    }
    inv_std_ = (sum_ / count + epsilon).rsqrt();
    const PerChannel scale = gamma * inv_std_;
    if constexpr (spelling == Spelling::fastest) {
      y.device(device) = y * spread(scale, x) + spread(beta, x);
    } else {
      y.device(device) = (x - spread(mean_, x)) * spread(scale, x) + spread(beta, x);
    }
    running_mean += momentum * (mean_ - running_mean);
    running_var += momentum * (sum_ / (count - T(1)) - running_var);
  }

  void infer(const Device& device, const Input& x, Output& y) const {
    const PerChannel scale = gamma * (running_var + epsilon).rsqrt();
    y.device(device) = (x - spread(running_mean, x)) * spread(scale, x) + spread(beta, x);
  }

  /// dx = gamma inv_std (dy - sum(dy) / n - (x - mean) inv_std^2 sum(dy (x - mean)) / n).
  void backward(const Device& device, const Input& x, const Input& dy, Output& dx) {
    const T count = values_per_channel(x);
    const PerChannel dy_scale = gamma * inv_std_;
    sum_per_channel(device, dy, sum_);
    beta_gradient += sum_;
    const PerChannel shift = -dy_scale * sum_ / count;
    if constexpr (spelling == Spelling::fastest) {
      dx.device(device) = dy * (x - spread(mean_, x));
      sum_per_channel(device, dx, sum_);
    } else {
      sum_per_channel(device, dy * (x - spread(mean_, x)), sum_);
    }
    gamma_gradient += sum_ * inv_std_;
    const PerChannel x_scale = -dy_scale * inv_std_.square() * sum_ / count;
    dx.device(device) = dy * spread(dy_scale, x) + (x - spread(mean_, x)) * spread(x_scale, x) + spread(shift, x);
  }

  PerChannel gamma, beta, running_mean, running_var, gamma_gradient, beta_gradient;

 private:
  static constexpr T epsilon = T(1e-5), momentum = T(0.1);

  static T values_per_channel(const Input& x) { return static_cast<T>(x.dimension(0) * x.dimension(2)); }

  /// One value per channel, repeated to the size of x.
  static auto spread(const PerChannel& values, const Input& x) {
    return values.reshape(Eigen::array<Index, 3>{1, values.size(), 1})
        .broadcast(Eigen::array<Index, 3>{x.dimension(0), 1, x.dimension(2)});
  }

  template <class X>
  static void sum_per_channel(const Device& device, const X& x, PerChannel& sum) {
    const auto dimensions = Eigen::TensorEvaluator<const X, Device>(x, device).dimensions();
    if constexpr (spelling == Spelling::as_written) {
      sum.device(device) = x.sum(Eigen::array<Index, 2>{0, 2});
    } else if (dimensions[2] == 1) {
      const Eigen::IndexList<Eigen::type2index<0>> rows;
      sum.device(device) = x.reshape(Eigen::array<Index, 2>{dimensions[0], dimensions[1]}).sum(rows);
    } else {
      const Eigen::IndexList<Eigen::type2index<0>, Eigen::type2index<2>> all_but_channels;
      sum.device(device) = x.sum(all_but_channels);
    }
  }

  PerChannel mean_, inv_std_, sum_;
};

}  // namespace eigen_expressions
