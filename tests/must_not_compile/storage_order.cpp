// expects: all tensors of a call have the same storage order
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const Eigen::Tensor<float, 4, Eigen::RowMajor>& x) {
#ifdef MUST_NOT_COMPILE
  Eigen::Tensor<float, 4, Eigen::ColMajor> y;
#else
  Eigen::Tensor<float, 4, Eigen::RowMajor> y;
#endif
  layer.infer(x, y);
}
