// expects: leave out y
#include <batchnorm/batchnorm.hpp>

void backward(batchnorm::BatchNorm<float, batchnorm::Relu>& layer, const Eigen::MatrixXf& x, const Eigen::MatrixXf& y,
              const Eigen::MatrixXf& dy, Eigen::MatrixXf& dx, Eigen::MatrixXf& dz) {
#ifdef MUST_NOT_COMPILE
  layer.backward_add(x, y, dy, dx, dz);
#else
  (void)y;
  layer.backward_add(x, dy, dx, dz, {.parameters = batchnorm::ParameterGradients::overwrite});
#endif
}
