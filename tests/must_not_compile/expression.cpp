// expects: Evaluate the expression
#include <batchnorm/batchnorm.hpp>

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;

void collect(const Tensor& x, batchnorm::Moments& moments) {
#ifdef MUST_NOT_COMPILE
  batchnorm::collect_moments(x + x, moments);
#else
  const Tensor doubled = x + x;
  batchnorm::collect_moments(doubled, moments);
#endif
}
