// expects: all tensors of a call have the same rank
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const Eigen::Tensor<float, 4>& x) {
#ifdef MUST_NOT_COMPILE
  Eigen::Tensor<float, 3> y;
#else
  Eigen::Tensor<float, 4> y;
#endif
  layer.infer(x, y);
}
