// expects: an output cannot be const
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const Eigen::MatrixXf& x) {
#ifdef MUST_NOT_COMPILE
  const Eigen::MatrixXf y;
#else
  Eigen::MatrixXf y;
#endif
  layer.infer(x, y);
}
