#pragma once

#include <array>
#include <tuple>
#include <type_traits>

#include "batchnorm/detail/bits.hpp"
#include "batchnorm/scalar.hpp"
#include "batchnorm/shape.hpp"

// What a formula reads: tensors of one shape. Each has a scalar of its own, and all are computed with in the same type.

namespace batchnorm::detail {

/// Those that memory is cut by: bits hardly count.
template <class... T>
inline constexpr Index tensors_among = (Index(!std::is_same_v<T, Bit>) + ...);

/// The inputs in the order of the formula.
template <class... T>
struct Inputs {
  static constexpr std::size_t count = sizeof...(T);
  static constexpr Index tensors = tensors_among<T...>;
  using First = std::tuple_element_t<0, std::tuple<T...>>;
  using Compute = ComputeOf<First>;
  using Statistic = StatisticOf<First>;
  using Widest = std::conditional_t<(std::is_same_v<T, Compute> || ...), Compute, First>;
  static_assert(((std::is_same_v<ComputeOf<T>, Compute> || std::is_same_v<T, Bit>)&&...),
                "batchnorm: all inputs of a call have the same scalar, or mix float, Eigen::bfloat16 and Eigen::half.");

  std::tuple<View<const T>...> views;

  explicit Inputs(const View<const T>&... of) : views(of...) {}

  const Shape& shape() const { return get<0>().shape; }
  template <std::size_t k>
  const auto& get() const {
    return std::get<k>(views);
  }

  /// Of each input: f(view).
  template <class F>
  auto map(const F& f) const {
    return std::apply([&](const auto&... view) { return std::array{f(view)...}; }, views);
  }
  template <class F>
  bool all(const F& f) const {
    return std::apply([&](const auto&... view) { return (f(view) && ...); }, views);
  }
};

template <class... T>
Inputs(const View<T>&...) -> Inputs<std::remove_const_t<T>...>;

}  // namespace batchnorm::detail
