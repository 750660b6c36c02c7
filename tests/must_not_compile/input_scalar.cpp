// expects: all inputs of a call have the same scalar
#include <batchnorm/batchnorm.hpp>

#ifdef MUST_NOT_COMPILE
using Gradient = Eigen::MatrixXd;
#else
using Gradient = Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic>;
#endif

void backward(batchnorm::BatchNorm<Eigen::bfloat16>& layer,
              const Eigen::Matrix<Eigen::bfloat16, Eigen::Dynamic, Eigen::Dynamic>& x, const Gradient& dy,
              Eigen::MatrixXf& dx) {
  layer.backward(x, dy, dx);
}
