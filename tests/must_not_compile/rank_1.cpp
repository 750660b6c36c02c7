// expects: a tensor needs at least two axes
#include <batchnorm/batchnorm.hpp>

void collect(Eigen::Tensor<float, 1>& values, batchnorm::Moments& moments) {
#ifdef MUST_NOT_COMPILE
  batchnorm::collect_moments(values, moments);
#else
  const Eigen::TensorMap<Eigen::Tensor<float, 2>> column(values.data(), values.size(), 1);
  batchnorm::collect_moments(column, moments);
#endif
}
