#pragma once

// Batch normalization for Eigen tensors. The public headers, in reading order:
// clang-format off
#include "batchnorm/version.hpp"
#include "batchnorm/error.hpp"
#include "batchnorm/options.hpp"
#include "batchnorm/scalar.hpp"
#include "batchnorm/shape.hpp"
#include "batchnorm/activation.hpp"
#include "batchnorm/moments.hpp"
#include "batchnorm/forward.hpp"
#include "batchnorm/gradient_sums.hpp"
#include "batchnorm/backward.hpp"
#include "batchnorm/backward_options.hpp"
#include "batchnorm/batch_norm.hpp"
#include "batchnorm/second_order.hpp"
#include "batchnorm/conditional.hpp"
#include "batchnorm/fold.hpp"
