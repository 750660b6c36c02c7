#include <batchnorm/batchnorm.hpp>
#include <iostream>

int main() {
  Eigen::Tensor<float, 4, Eigen::RowMajor> x(4, 8, 5, 5), y, dy(4, 8, 5, 5), dx;  // N, C, H, W
  x.setRandom();
  dy.setRandom();

  batchnorm::BatchNorm<float> layer(8);
  layer.forward(x, y);
  layer.backward(x, dy, dx);
  layer.eval();
  layer.infer(x, y);

  std::cout << "mean: " << layer.running_mean()(0) << "\ntarget: " << batchnorm::name(batchnorm::active_target()) << "\n";
}
