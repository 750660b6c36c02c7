// expects: x has the scalar of the layer
#include <batchnorm/batchnorm.hpp>

#ifdef MUST_NOT_COMPILE
using Tensor = Eigen::Tensor<double, 4>;
#else
using Tensor = Eigen::Tensor<float, 4>;
#endif

void infer(const batchnorm::BatchNorm<float>& layer, const Tensor& x, Tensor& y) { layer.infer(x, y); }
