#pragma once

// Eigen's folder is on the include path where its package says so; Debian's is also found without.
#if __has_include(<unsupported/Eigen/CXX11/Tensor>)
#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>
#else
#include <eigen3/Eigen/Core>
#include <eigen3/unsupported/Eigen/CXX11/Tensor>
#endif
