// What bench_compile_time compiles: a file with Eigen's tensors, and what LIBRARY adds to it.
#include <unsupported/Eigen/CXX11/Tensor>

#define EIGEN_ALONE 1
#define INCLUDED 2
#define LAYER 3
#define LAYER_COMPILED_ELSEWHERE 4
#define LAYERS_FILE 5

#if LIBRARY < EIGEN_ALONE
#error LIBRARY is none of these.
#elif LIBRARY == LAYER_COMPILED_ELSEWHERE || LIBRARY == LAYERS_FILE
#include <batchnorm/instantiate.hpp>
#elif LIBRARY != EIGEN_ALONE
#include <batchnorm/batchnorm.hpp>
#endif

#if LIBRARY == LAYER_COMPILED_ELSEWHERE
BATCHNORM_LAYER(extern template, float, batchnorm::Identity);
#elif LIBRARY == LAYERS_FILE
BATCHNORM_LAYER(template, float, batchnorm::Identity);
#endif

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;

void run(const Tensor& x, const Tensor& dy, Tensor& y, Tensor& dx) {
#if LIBRARY == LAYER || LIBRARY == LAYER_COMPILED_ELSEWHERE
  batchnorm::BatchNorm<float> layer(x.dimension(1));
  layer.forward(x, y);
  layer.backward(x, dy, dx);
  layer.infer(x, y);
#else
  y = x;
  dx = dy;
#endif
}
