#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <vector>

#include "batchnorm/detail/eigen.hpp"
#include "batchnorm/options.hpp"

namespace batchnorm {

template <class T>
using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;

template <class Scalar>
inline constexpr bool is_16_bit = std::is_same_v<Scalar, Eigen::half> || std::is_same_v<Scalar, Eigen::bfloat16>;

/// What kernels compute with: 16-bit values as float.
template <class Scalar>
using ComputeOf = std::conditional_t<is_16_bit<Scalar>, float, Scalar>;

/// Gamma, beta and their gradients.
template <class Scalar>
using ParameterOf = ComputeOf<Scalar>;

namespace detail {

/// Not written out in StatisticOf: GCC and Clang would give functions of it different names.
template <class Scalar>
struct StatisticTrait {
  static constexpr bool widens = std::is_same_v<ComputeOf<Scalar>, float> || std::is_integral_v<Scalar>;
  using Type = std::conditional_t<widens, double, Scalar>;
};

}  // namespace detail

/// Per-channel statistics are double for double, float and 16-bit tensors; for other scalars, the scalar itself.
template <class Scalar>
using StatisticOf = typename detail::StatisticTrait<Scalar>::Type;

/// Memory that calls reuse: after the first call with a shape nothing is allocated. One serves one call at a time.
template <class Scalar>
class Workspace {
 public:
  using Compute = ComputeOf<Scalar>;
  using Statistic = StatisticOf<Scalar>;

  /// Memory held, in bytes.
  Index bytes() const {
    const std::size_t statistics = statistics_.size() + kept_.size();
    return static_cast<Index>(computes_.size() * sizeof(Compute) + statistics * sizeof(Statistic));
  }

  /// Room for as many values of each kind; what was there is lost.
  void reserve(Index computes, Index statistics) {
    if (static_cast<Index>(computes_.size()) < computes) computes_.resize(static_cast<std::size_t>(computes));
    if (static_cast<Index>(statistics_.size()) < statistics) statistics_.resize(static_cast<std::size_t>(statistics));
  }
  Compute* computes() { return computes_.data(); }
  Statistic* statistics() { return statistics_.data(); }

  /// As many statistics that `reserve` leaves alone: what a call of several passes carries from one to the next.
  Statistic* keep(Index statistics) {
    if (static_cast<Index>(kept_.size()) < statistics) kept_.resize(static_cast<std::size_t>(statistics));
    return kept_.data();
  }

 private:
  /// Vectors at cache line boundaries.
  template <class T>
  struct LineAllocator {
    using value_type = T;
    static constexpr std::align_val_t line{64};
    LineAllocator() = default;
    template <class U>
    LineAllocator(const LineAllocator<U>&) {}
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
    void deallocate(T* p, std::size_t) { ::operator delete(p, line); }
    friend bool operator==(const LineAllocator&, const LineAllocator&) { return true; }
  };

  std::vector<Compute, LineAllocator<Compute>> computes_;
  std::vector<Statistic, LineAllocator<Statistic>> statistics_, kept_;
};

namespace detail {

/// The workspace that was given, or one for this call.
template <class T>
class WorkspaceOrOwn {
 public:
  explicit WorkspaceOrOwn(Workspace<T>* given) : given_(given) {}
  Workspace<T>& get() { return given_ != nullptr ? *given_ : own_; }

 private:
  Workspace<T>* given_;
  Workspace<T> own_;
};

}  // namespace detail

}  // namespace batchnorm
