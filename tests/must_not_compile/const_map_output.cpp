// expects: an output cannot be const
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const Eigen::MatrixXf& x, float* memory) {
#ifdef MUST_NOT_COMPILE
  Eigen::Map<const Eigen::MatrixXf> y(memory, x.rows(), x.cols());
#else
  Eigen::Map<Eigen::MatrixXf> y(memory, x.rows(), x.cols());
#endif
  layer.infer(x, y);
}
