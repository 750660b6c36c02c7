// expects: backward_add wants y after x
#include <batchnorm/batchnorm.hpp>

/// Is not said to have two slopes.
struct Relu : batchnorm::Relu {
  static constexpr bool has_two_slopes = false;
};

void backward(batchnorm::BatchNorm<float, Relu>& layer, const Eigen::MatrixXf& x, const Eigen::MatrixXf& y,
              const Eigen::MatrixXf& dy, Eigen::MatrixXf& dx, Eigen::MatrixXf& dz) {
  const batchnorm::BatchNorm<float, Relu>::BackwardOptions options;
#ifdef MUST_NOT_COMPILE
  (void)y;
  layer.backward_add(x, dy, dx, dz, options);
#else
  layer.backward_add(x, y, dy, dx, dz, options);
#endif
}
