/// The shape of the golden values. Each step trains on a batch, but the last, which infers.
#pragma once

#include <batchnorm/batchnorm.hpp>
#include <vector>

namespace batchnorm::test::golden {

using Numbers = std::vector<double>;

struct Outputs {
  Numbers y, dx, dgamma{}, dbeta{}, running_mean, running_var;
};

struct Step {
  Numbers x, dy;
  Outputs in_double, in_float;
};

struct Run {
  const char* name;
  std::vector<Index> dims;
  double epsilon;
  RunningAverage average;
  Affine affine;
  Numbers gamma, beta;
  std::vector<Step> steps;
};

}  // namespace batchnorm::test::golden
