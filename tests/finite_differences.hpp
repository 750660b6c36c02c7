/// Derivatives by definition, to hold the formulas against.
#pragma once

#include <Eigen/Core>

namespace batchnorm::test {

/// Gradient of `loss` at `at`, a flat array or vector, from four values of the loss per entry (error of order step^4).
template <class Loss, class Values>
Values finite_differences(const Loss& loss, Values at, typename Values::Scalar step) {
  Values gradient(at.size());
  for (Eigen::Index i = 0; i < at.size(); ++i) {
    const auto center = at[i];
    const auto slope = [&](int steps) {
      at[i] = center + steps * step;
      const auto above = loss(at);
      at[i] = center - steps * step;
      const auto below = loss(at);
      return (above - below) / (2 * steps * step);
    };
    gradient[i] = (4 * slope(1) - slope(2)) / 3;
    at[i] = center;
  }
  return gradient;
}

}  // namespace batchnorm::test
