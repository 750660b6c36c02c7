/// How far a result lies from the oracle's, and how far it may.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "oracle.hpp"

namespace batchnorm::test {

using oracle::Real;
using oracle::Values;

enum class Quantity { tensor, parameter_gradient, batch_statistic, running_statistic };

/// Largest error allowed, in units of the largest term of the formula. `condition` is the largest |mean| / std: however
/// exact the tensor, its mean is rounded to the type of the statistics.
template <class Scalar>
Real tolerance(Quantity quantity, Real condition = 1) {
  constexpr bool is_long_double = std::is_same_v<Scalar, long double>;
  using Statistic = std::conditional_t<is_long_double, long double, double>;
  const Real rounded_mean = 2 * condition * std::numeric_limits<Statistic>::epsilon();
  if (is_long_double) return 1e-16L + rounded_mean;
  if (std::is_same_v<Scalar, double>) return 1e-13L + rounded_mean;
  if (quantity == Quantity::tensor && std::is_same_v<Scalar, Eigen::half>) return 5e-4L;
  if (quantity == Quantity::tensor && std::is_same_v<Scalar, Eigen::bfloat16>) return 4e-3L;
  return (quantity == Quantity::running_statistic ? 2e-7L : 5e-7L) + rounded_mean;
}

/// What an error of `actual` is measured in: the largest term. Where that is larger, the type's smallest normal number;
/// and a 16-bit result itself, for its terms may add up, and one rounding of the sum is all that is allowed.
template <class Scalar>
Real unit_of(const Real& value, const Real& largest_term) {
  const Real unit = std::max(largest_term, static_cast<Real>((std::numeric_limits<Scalar>::min)()));
  return sizeof(Scalar) == 2 ? std::max(unit, std::abs(value)) : unit;
}

/// Largest error of `actual`, an Eigen vector or array, in units of the largest term. Infinite where one of the two is
/// NaN, or where `actual` has another length.
template <class Actual>
Real error(const Actual& actual, const oracle::Result& expected) {
  constexpr Real infinite = std::numeric_limits<Real>::infinity();
  if (actual.size() != expected.value.size()) return infinite;
  Real largest = 0;
  for (Eigen::Index i = 0; i < actual.size(); ++i) {
    const Real difference = std::abs(static_cast<Real>(actual[i]) - expected.value[i]);
    if (difference == 0) continue;
    const Real in_units = difference / unit_of<typename Actual::Scalar>(expected.value[i], expected.unit[i]);
    largest = std::isnan(in_units) ? infinite : std::max(largest, in_units);
  }
  return largest;
}

/// The batch mean in units of the standard deviation (the mean itself may be near zero, or far larger).
inline oracle::Result mean_of(const oracle::Statistics& s) { return {s.mean, s.var.sqrt()}; }

inline oracle::Result var_of(const oracle::Statistics& s) { return {s.var, s.var}; }

}  // namespace batchnorm::test
