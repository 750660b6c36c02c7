#include <cmath>
#include <cstdlib>

#include "layers.hpp"

using Vector = Eigen::VectorXf;  // two samples of one channel

bool equal(const Vector& values, float first, float second) {
  return values.size() == 2 && std::abs(values[0] - first) < 1e-6f && std::abs(values[1] - second) < 1e-6f;
}

// Where x is -1 and 1, xhat is the same.

bool right_without_residual() {
  const Vector x{{-1, 1}}, dy{{1, 3}};
  Vector y, dx;
  batchnorm::BatchNorm<float, TwoSlopedRamp> layer(1, {.epsilon = 0});
  layer.forward(x, y);
  bool right = equal(y, 0, 1);
  layer.backward(x, dy, dx);
  layer.backward_parameters(x, dy);
  right = right && equal(dx, 0, 0) && layer.gamma_gradient()[0] == 6 && layer.beta_gradient()[0] == 6;
  layer.infer(x, y);
  return right && equal(y, 0, 1 / std::sqrt(1.1f));  // the running variance: 0.9 + 0.1 * 2
}

template <class Act>
bool right_with_residual() {
  const Vector x{{-1, 1}}, z{{2, 1}}, dy{{1, 3}};
  Vector y, dx, dz;
  batchnorm::BatchNorm<float, Act> layer(1, {.epsilon = 0});
  layer.infer_add(x, z, y);
  bool right = equal(y, 1, 2);
  layer.forward_add(x, z, y);
  if constexpr (batchnorm::BatchNorm<float, Act>::keeps_slopes) {
    layer.backward_add(x, dy, dx, dz);
  } else {
    layer.backward_add(x, y, dy, dx, dz);
  }
  return right && equal(y, 1, 2) && equal(dx, 0, 0) && equal(dz, 1, 3);
}

int main() {
  const bool right = right_without_residual() && right_with_residual<TwoSlopedRamp>() && right_with_residual<Ramp>() &&
                     right_with_residual<batchnorm::Identity>();
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
