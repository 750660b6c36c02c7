// expects: Evaluate the expression
#include <batchnorm/batchnorm.hpp>

void infer(const batchnorm::BatchNorm<float>& layer, const Eigen::MatrixXf& x, Eigen::MatrixXf& y) {
#ifdef MUST_NOT_COMPILE
  layer.infer(2 * x, y);
#else
  layer.infer((2 * x).eval(), y);
#endif
}
