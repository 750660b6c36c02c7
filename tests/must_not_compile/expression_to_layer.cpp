// expects: Evaluate the expression
#include <batchnorm/batchnorm.hpp>

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;

void forward(batchnorm::BatchNorm<float>& layer, const Tensor& x, Tensor& y) {
#ifdef MUST_NOT_COMPILE
  layer.forward(x + x, y);
#else
  const Tensor doubled = x + x;
  layer.forward(doubled, y);
#endif
}
