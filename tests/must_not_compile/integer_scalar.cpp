// expects: integers cannot be normalized
#include <batchnorm/batchnorm.hpp>

void collect(const Eigen::Tensor<int, 2>& x, batchnorm::Moments& moments) {
#ifdef MUST_NOT_COMPILE
  batchnorm::collect_moments(x, moments);
#else
  const Eigen::Tensor<float, 2> converted = x.cast<float>();
  batchnorm::collect_moments(converted, moments);
#endif
}
