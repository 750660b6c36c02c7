// expects: an output has the scalar of the inputs
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const Eigen::MatrixXf& x) {
#ifdef MUST_NOT_COMPILE
  Eigen::MatrixXd y;
#else
  Eigen::MatrixXf y;
#endif
  layer.infer(x, y);
}
