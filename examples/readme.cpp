#include <batchnorm/batchnorm.hpp>
#include <iostream>

int main() {
  Eigen::Tensor<float, 4, Eigen::RowMajor> x(32, 64, 56, 56), y, dy(32, 64, 56, 56), dx;  // N, C, H, W
  for (int i = 0; i < x.size(); ++i) x.data()[i] = 100 + float(i % 7), dy.data()[i] = float(i % 5);
  batchnorm::BatchNorm<float> layer(64);  // channels on axis 1, epsilon 1e-5: PyTorch's defaults
  layer.forward(x, y);                    // training: batch statistics; the running ones follow
  layer.backward(x, dy, dx);              // dx; adds to gamma_gradient() and beta_gradient()
  layer.gamma() -= 1e-3f * layer.gamma_gradient();
  layer.eval();
  layer.forward(x, y);  // running statistics
  layer.infer(x, y);    // the same, const: any number of threads may share the layer
  std::cout << "running mean " << layer.running_mean()[0] << " after " << layer.batches_seen() << " batch, on "
            << batchnorm::name(batchnorm::active_target()) << '\n';
}
