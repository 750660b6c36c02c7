#pragma once

#include <type_traits>

#include "batchnorm/scalar.hpp"

namespace batchnorm {

/// What a backward does with the gradients of gamma and beta.
enum class ParameterGradients { add, overwrite, skip };

/// What a backward is asked for beside dx.
template <class Statistic>
struct BackwardOptions {
  ParameterGradients parameters = ParameterGradients::add;
  /// Gradients of the loss with respect to moments().mean and moments().var(), where those are outputs too.
  const Vector<Statistic>* mean = nullptr;
  const Vector<Statistic>* var = nullptr;
};

namespace detail {

template <class T>
inline constexpr bool is_backward_options = false;
template <class Statistic>
inline constexpr bool is_backward_options<BackwardOptions<Statistic>> = true;

/// What may be a tensor, where options may follow.
template <class T>
concept NoBackwardOptions = !is_backward_options<std::remove_cvref_t<T>>;

}  // namespace detail
}  // namespace batchnorm
