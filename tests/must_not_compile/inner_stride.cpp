// expects: a matrix needs unit inner stride
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const float* memory, Eigen::MatrixXf& y) {
#ifdef MUST_NOT_COMPILE
  using Stride = Eigen::Stride<Eigen::Dynamic, 2>;
  const Eigen::Map<const Eigen::MatrixXf, Eigen::Unaligned, Stride> x(memory, 8, 3, Stride(16, 2));
#else
  using Stride = Eigen::OuterStride<>;
  const Eigen::Map<const Eigen::MatrixXf, Eigen::Unaligned, Stride> x(memory, 8, 3, Stride(16));
#endif
  layer.infer(x, y);
}
