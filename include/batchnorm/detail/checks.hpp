#pragma once

#include <algorithm>
#include <span>

#include "batchnorm/shape.hpp"

// Checks of tensors and vectors; those of one feature stand beside it. All of them run before anything is written.

namespace batchnorm::detail {

BATCHNORM_COLD inline std::string text_of(std::span<const Index> dims) {
  std::string text;
  for (const Index dim : dims) text += (text.empty() ? "" : "x") + std::to_string(dim);
  return text;
}

BATCHNORM_COLD [[noreturn]] inline void fail_channels(const char* function, std::span<const Index> x, Index axis,
                                                      Index channels) {
  fail(function, "x is " + text_of(x) + "; axis " + std::to_string(axis) + " must have " + std::to_string(channels) +
                     " channels");
}

BATCHNORM_COLD [[noreturn]] inline void fail_dimensions(const char* function, const char* name,
                                                        std::span<const Index> dims, const char* relation,
                                                        std::span<const Index> others) {
  fail(function, std::string(name) + " is " + text_of(dims) + "; " + relation + " " + text_of(others));
}

BATCHNORM_COLD [[noreturn]] inline void fail_length(const char* function, const char* name, Index length,
                                                    Index channels) {
  fail(function, std::string(name) + " has length " + std::to_string(length) + "; it must have one entry for each of " +
                     std::to_string(channels) + " channels");
}

template <class X>
void check_channels(const char* function, const X& x, Index axis, Index channels) {
  const Dimensions<X> dims = dimensions_of(x);
  if (dims[static_cast<std::size_t>(axis)] != channels) fail_channels(function, dims, axis, channels);
}

template <class X, class Y>
void check_same_dimensions(const char* function, const char* y_name, const Y& y, const X& x) {
  const auto x_dims = dimensions_of(x), y_dims = dimensions_of(y);
  if (y_dims != x_dims) fail_dimensions(function, y_name, y_dims, "x is", x_dims);
}

inline void check_length(const char* function, const char* name, Index length, Index channels) {
  if (length != channels) fail_length(function, name, length, channels);
}

/// A parameter vector; an absent one has no entries.
inline void check_optional_length(const char* function, const char* name, Index length, Index channels) {
  if (length != 0) check_length(function, name, length, channels);
}

BATCHNORM_COLD [[noreturn]] inline void fail_negative(const char* function, const char* name, Index c) {
  fail(function, std::string(name) + "[" + std::to_string(c) + "] is negative; it must be at least 0");
}

template <class V>
void check_not_negative(const char* function, const char* name, const V& values) {
  for (Index c = 0; c < values.size(); ++c) {
    if (values[c] < 0) fail_negative(function, name, c);
  }
}

BATCHNORM_COLD [[noreturn]] inline void fail_count(const char* function, const char* name) {
  fail(function, std::string(name) + " is negative or not finite");
}

/// Of values, or the sum of their weights.
template <class Statistic>
void check_count(const char* function, const char* name, const Statistic& count) {
  if (!(count >= Statistic(0) && count - count == Statistic(0))) fail_count(function, name);
}

inline void check_single_value(const char* function, const Shape& shape, SingleValue single_value) {
  if (shape.count() != 1 || shape.channels == 0 || single_value == SingleValue::allow) return;
  fail(function, "x has one value per channel; statistics of a batch need at least two (or SingleValue::allow)");
}

/// The dimensions of a tensor in its own type of index.
template <class Y>
using OwnDimensions = Eigen::array<typename Y::Index, Y::NumIndices>;

template <class Y>
constexpr bool is_resizable() {
  using Plain = std::remove_cvref_t<Y>;
  if constexpr (is_dense_rank_2<Plain>()) {
    return TraitsOf<Plain>::owning && Plain::SizeAtCompileTime == Eigen::Dynamic;
  } else {
    return TraitsOf<Plain>::owning && requires(Plain & y, OwnDimensions<Plain> dims) { y.resize(dims); };
  }
}

/// Whether `y` has, or can be resized to, the dimensions of x.
template <class Y>
bool can_take(const Y& y, const Dimensions<Y>& dims) {
  if (dimensions_of(y) == dims) return true;
  if constexpr (!is_resizable<Y>()) {
    return false;
  } else if constexpr (is_dense_rank_2<Y>()) {
    const auto fits = [](Index fixed, Index most, Index wanted) {
      return (fixed == Eigen::Dynamic || fixed == wanted) && (most == Eigen::Dynamic || most >= wanted);
    };
    return fits(Y::RowsAtCompileTime, Y::MaxRowsAtCompileTime, dims[0]) &&
           fits(Y::ColsAtCompileTime, Y::MaxColsAtCompileTime, dims[1]);
  } else {
    return true;
  }
}

/// Lines of a matrix that share memory cannot be written one after another.
template <class Y>
void check_lines(const char* function, const char* y_name, const Y& y) {
  if constexpr (is_dense_rank_2<Y>()) {
    if (y.outerSize() <= 1 || y.outerStride() >= y.innerSize() || -y.outerStride() >= y.innerSize()) return;
    fail(function, std::string(y_name) + " has outer stride " + std::to_string(y.outerStride()) +
                       "; it must be at least the " + std::to_string(y.innerSize()) + " values of a line");
  }
}

template <class X, class Y>
void check_output(const char* function, const char* y_name, const Y& y, const X& x) {
  if (!can_take(y, dimensions_of(x))) check_same_dimensions(function, y_name, y, x);
  check_lines(function, y_name, y);
}

template <class X, class Y>
void resize_like(Y& y, const X& x) {
  if constexpr (is_resizable<Y>()) {
    const auto dims = dimensions_of(x);
    if (dimensions_of(y) == dims) return;
    if constexpr (is_dense_rank_2<Y>()) {
      y.resize(dims[0], dims[1]);
    } else {
      OwnDimensions<Y> own;
      std::transform(dims.begin(), dims.end(), own.begin(), [](Index d) { return static_cast<typename Y::Index>(d); });
      y.resize(own);
    }
  }
}

/// The memory of a tensor: `lines` stretches of `length` bytes, `stride` bytes apart.
struct Extent {
  std::uintptr_t begin;
  std::uintptr_t lines, length, stride;
  std::uintptr_t end() const { return begin + (lines - 1) * stride + length; }
  friend bool operator==(const Extent&, const Extent&) = default;
};

template <class X>
Extent extent_of(const X& x) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data_of(x));
  const auto bytes = static_cast<std::uintptr_t>(size_of(x)) * sizeof(ScalarOf<X>);
  if constexpr (is_dense_rank_2<X>()) {
    const auto lines = static_cast<std::uintptr_t>(x.outerSize());
    const bool descends = x.outerStride() < 0;
    const auto stride =
        static_cast<std::uintptr_t>(descends ? -x.outerStride() : x.outerStride()) * sizeof(ScalarOf<X>);
    const auto lowest = descends ? begin - (lines - 1) * stride : begin;
    if (bytes != 0 && stride * lines < bytes) return {lowest, 1, (lines - 1) * stride + bytes / lines, bytes};
    if (bytes != 0 && lines > 1 && (descends || stride * lines != bytes)) return {lowest, lines, bytes / lines, stride};
  }
  return {begin, 1, bytes, bytes};
}

inline bool overlap(const Extent& a, const Extent& b) {
  if (a.length == 0 || b.length == 0 || a.end() <= b.begin || b.end() <= a.begin) return false;
  if (a.stride != b.stride || a.lines == 1 || b.lines == 1) return true;
  // Interleaved columns of one matrix: disjoint when each line of one fits in the gap of the other.
  const Extent& first = a.begin <= b.begin ? a : b;
  const Extent& second = a.begin <= b.begin ? b : a;
  const std::uintptr_t offset = (second.begin - first.begin) % first.stride;
  return offset < first.length || first.stride - offset < second.length;
}

BATCHNORM_COLD [[noreturn]] inline void fail_overlap(const char* function, const char* y_name, const char* x_name) {
  fail(function, std::string(y_name) + " overlaps " + x_name + "; it must be the same memory or lie apart");
}

template <class X>
void check_memory(const char* function, const char* name, const X& x) {
  if (size_of(x) != 0 && data_of(x) == nullptr)
    fail(function, std::string(name) + " has no memory; its data() is null");
}

/// y may be exactly x (in place) or lie apart from it. Both have memory, or no values yet.
template <class X, class Y>
void check_overlap(const char* function, const char* y_name, const Y& y, const char* x_name, const X& x) {
  check_memory(function, x_name, x);
  check_memory(function, y_name, y);
  const Extent from = extent_of(x), to = extent_of(y);
  const bool same = from == to && static_cast<const void*>(data_of(x)) == static_cast<const void*>(data_of(y));
  if (!same && overlap(from, to)) fail_overlap(function, y_name, x_name);
}

/// The gradient of an input, from x and dy.
template <class X, class DY, class DX>
void check_input_gradient(const char* function, const char* x_name, const X& x, const DY& dy, const DX& dx,
                          const char* dx_name = "dx") {
  check_output(function, dx_name, dx, x);
  check_overlap(function, dx_name, dx, x_name, x);
  check_overlap(function, dx_name, dx, "dy", dy);
}

/// y must lie apart from x, and be another object: both may be about to be resized.
template <class X, class Y>
void check_apart(const char* function, const char* y_name, const Y& y, const char* x_name, const X& x) {
  const bool same = static_cast<const void*>(&x) == static_cast<const void*>(&y);
  if (same || overlap(extent_of(x), extent_of(y))) {
    fail(function, std::string(y_name) + " overlaps " + x_name + "; it must lie apart");
  }
}

}  // namespace batchnorm::detail
