#pragma once

#include <Eigen/Core>

namespace example {

using Eigen::Index;

/// Samples x features: each sample lies in one piece, and the features are the channels of a batch normalization.
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Labels = Eigen::VectorXi;

}  // namespace example
