#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <type_traits>

#include "batchnorm/detail/eigen.hpp"
#include "batchnorm/error.hpp"
#include "batchnorm/options.hpp"
#include "batchnorm/scalar.hpp"

namespace batchnorm {

/// Three numbers describe every tensor: element (o, c, i) lies at (o * channels + c) * inner + i.
struct Shape {
  Index outer = 0;
  Index channels = 0;
  Index inner = 0;

  Index count() const { return outer * inner; }  // values per channel
  Index size() const { return outer * channels * inner; }
  friend bool operator==(const Shape&, const Shape&) = default;
};

namespace detail {

/// A tensor below the public functions. Rank-2 maps may have gaps, so the strides stand beside the shape.
template <class T>
struct View {
  T* data;
  Shape shape;
  Index outer_stride;
  Index channel_stride;

  operator View<const T>() const requires(!std::is_const_v<T>) { return {data, shape, outer_stride, channel_stride}; }
  bool dense_rows() const { return shape.outer <= 1 || outer_stride == shape.channels * shape.inner; }
  bool dense_channels() const { return shape.channels <= 1 || channel_stride == shape.inner; }
};

/// What counts as a tensor: rank, scalar, order, dimensions and memory. `ok` is false for every other type.
template <class X>
struct TensorTraits {
  // So that nothing else is wrong until require_memory speaks.
  using Scalar = float;
  static constexpr bool ok = false, row_major = true, owning = false;
  static constexpr int rank = 2;
};

template <class Scalar_, int Rank, bool IsRowMajor, bool IsOwning>
struct EigenTensorTraits {
  using Scalar = Scalar_;
  static constexpr bool ok = true;
  static constexpr int rank = Rank;
  static constexpr bool row_major = IsRowMajor;
  static constexpr bool owning = IsOwning;
};

template <class S, int R, int O, class I>
struct TensorTraits<Eigen::Tensor<S, R, O, I>> : EigenTensorTraits<S, R, (O & Eigen::RowMajor) != 0, true> {};

template <class S, class D, int O, class I>
struct TensorTraits<Eigen::TensorFixedSize<S, D, O, I>>
    : EigenTensorTraits<S, static_cast<int>(D::count), (O & Eigen::RowMajor) != 0, true> {};

template <class P, int O, template <class> class M>
struct TensorTraits<Eigen::TensorMap<P, O, M>>
    : EigenTensorTraits<typename P::Scalar, TensorTraits<std::remove_const_t<P>>::rank,
                        TensorTraits<std::remove_const_t<P>>::row_major, false> {};

template <class X>
constexpr bool is_dense_rank_2() {
  if constexpr (std::is_base_of_v<Eigen::DenseBase<X>, X>) {
    return (Eigen::internal::traits<X>::Flags & Eigen::DirectAccessBit) != 0;
  } else {
    return false;
  }
}

template <class X>
requires(is_dense_rank_2<X>()) struct TensorTraits<X>
    : EigenTensorTraits<typename X::Scalar, 2, X::IsRowMajor, std::is_base_of_v<Eigen::PlainObjectBase<X>, X>> {
};

template <class X>
using TraitsOf = TensorTraits<std::remove_cvref_t<X>>;
template <class X>
using ScalarOf = std::remove_const_t<typename TraitsOf<X>::Scalar>;

/// A sentence for each type that does not fit, instead of pages of substitution failure.
template <class X>
consteval void require_memory() {
  static_assert(TraitsOf<X>::ok,
                "batchnorm: this argument is not a tensor in memory. Evaluate the expression first, for example into "
                "an Eigen::Tensor, Matrix or Array.");
  if constexpr (TraitsOf<X>::ok) {
    static_assert(TraitsOf<X>::rank >= 2, "batchnorm: a tensor needs at least two axes, one of them the channels.");
    if constexpr (is_dense_rank_2<std::remove_cvref_t<X>>()) {
      static_assert(std::remove_cvref_t<X>::InnerStrideAtCompileTime == 1,
                    "batchnorm: a matrix needs unit inner stride (an outer stride is welcome). Evaluate it first.");
    }
  }
}

template <class X>
consteval void require_tensor() {
  require_memory<X>();
  static_assert(!std::is_integral_v<ScalarOf<X>>, "batchnorm: integers cannot be normalized. Convert to float.");
}

/// Y may have any scalar.
template <class X, class Y>
consteval void require_same_layout() {
  require_memory<X>();
  require_memory<Y>();
  if constexpr (TraitsOf<X>::ok && TraitsOf<Y>::ok) {
    static_assert(TraitsOf<X>::rank == TraitsOf<Y>::rank, "batchnorm: all tensors of a call have the same rank.");
    static_assert(TraitsOf<X>::row_major == TraitsOf<Y>::row_major,
                  "batchnorm: all tensors of a call have the same storage order.");
  }
}

/// detail::Inputs says which scalars mix.
template <class X, class Y>
consteval void require_input() {
  require_tensor<Y>();
  require_same_layout<X, Y>();
}

template <class X, class Scalar>
consteval void require_scalar() {
  static_assert(!TraitsOf<X>::ok || std::is_same_v<ScalarOf<X>, Scalar>, "batchnorm: x has the scalar of the layer.");
}

/// `Y&&` as deduced for an output argument.
template <class X, class Y>
consteval void require_output() {
  require_same_layout<X, Y>();
  if constexpr (TraitsOf<X>::ok && TraitsOf<Y>::ok) {
    static_assert(
        std::is_same_v<ComputeOf<ScalarOf<X>>, ComputeOf<ScalarOf<Y>>>,
        "batchnorm: an output has the scalar of the inputs, or mixes float, Eigen::bfloat16 and Eigen::half.");
    using Pointer = decltype(std::declval<std::remove_reference_t<Y>&>().data());
    static_assert(!std::is_const_v<std::remove_pointer_t<Pointer>>, "batchnorm: an output cannot be const.");
    static_assert(std::is_lvalue_reference_v<Y> || !TraitsOf<Y>::owning,
                  "batchnorm: this output is a temporary; its values would be lost.");
  }
}

/// Nothing where X is no tensor: require_memory says so.
template <class X>
auto* data_of(X& x) {
  if constexpr (TraitsOf<X>::ok) {
    return x.data();
  } else {
    return static_cast<ScalarOf<X>*>(nullptr);
  }
}
template <class X>
Index size_of(const X& x) {
  if constexpr (TraitsOf<X>::ok) {
    return x.size();
  } else {
    return 0;
  }
}

template <class X>
using Dimensions = std::array<Index, static_cast<std::size_t>(TraitsOf<X>::rank)>;

template <class X>
Dimensions<X> dimensions_of(const X& x) {
  if constexpr (!TraitsOf<X>::ok) {
    return {};
  } else if constexpr (is_dense_rank_2<X>()) {
    return {x.rows(), x.cols()};
  } else {
    const Eigen::DSizes<Index, TraitsOf<X>::rank> sizes(x.dimensions());
    Dimensions<X> dims;
    std::copy_n(sizes.begin(), dims.size(), dims.begin());
    return dims;
  }
}

BATCHNORM_COLD [[noreturn]] inline void fail_axis(const char* function, int axis, int rank, const char* name,
                                                  const char* has) {
  fail(function, std::string(name) + " is " + std::to_string(axis) + "; " + has + " " + std::to_string(rank) + " axes");
}

/// The axis counted from the front.
template <class X>
Index resolve_axis(const char* function, int axis, const char* name = "axis", const char* has = "x has") {
  constexpr int rank = TraitsOf<X>::rank;
  if (axis < -rank || axis >= rank) fail_axis(function, axis, rank, name, has);
  return axis < 0 ? axis + rank : axis;
}

template <class X>
Shape resolve_shape(const X& x, Index axis) {
  const Dimensions<X> dims = dimensions_of(x);
  Shape shape{1, dims[static_cast<std::size_t>(axis)], 1};
  for (std::size_t k = 0; k < dims.size(); ++k) {
    const Index place = static_cast<Index>(k) - axis;
    const bool is_outer = TraitsOf<X>::row_major ? place < 0 : place > 0;
    if (place != 0) (is_outer ? shape.outer : shape.inner) *= dims[k];
  }
  return shape;
}

template <class X>
auto view_of(X& x, Index axis) {
  auto* const data = data_of(x);
  using Traits = TraitsOf<X>;
  View<std::remove_pointer_t<decltype(data)>> view{data, resolve_shape(x, axis), 0, 0};
  view.outer_stride = view.shape.channels * view.shape.inner;
  view.channel_stride = view.shape.inner;
  if constexpr (is_dense_rank_2<std::remove_const_t<X>>()) {
    // The slow axis of a matrix has the outer stride: it holds the channels, or the values of one channel.
    const bool channels_are_slow = axis == (Traits::row_major ? 0 : 1);
    (channels_are_slow ? view.channel_stride : view.outer_stride) = x.outerStride();
  }
  return view;
}

}  // namespace detail

/// The shape of `x` with the channels on `axis` (negative: from the end).
///
/// Throws: batchnorm::Error when the axis is out of range.
template <class X>
Shape shape_of(const X& x, int axis) {
  detail::require_tensor<X>();
  return detail::resolve_shape(x, detail::resolve_axis<X>("shape_of", axis));
}

}  // namespace batchnorm
