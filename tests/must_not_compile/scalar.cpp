// expects: all tensors of a call have the same scalar
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const Eigen::MatrixXf& x) {
#ifdef MUST_NOT_COMPILE
  Eigen::MatrixXd y;
#else
  Eigen::MatrixXf y;
#endif
  layer.infer(x, y);
}
