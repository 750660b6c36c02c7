#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "batchnorm/detail/checks.hpp"

namespace batchnorm::detail {

/// What a backward has to know of the forward before it.
class LastForward {
 public:
  enum class Kind { plain, add, weighted };

  template <class X>
  void remember(Kind kind, const X& x, Statistics statistics) {
    const auto dims = dimensions_of(x);
    dimensions_.assign(dims.begin(), dims.end());
    kind_ = kind;
    statistics_ = statistics;
  }

  /// Whether it normalized x with its own statistics. There must have been one.
  bool of_batch() const { return statistics_ == Statistics::of_batch; }

  /// Throws unless it was of this kind and had the dimensions of x, which the message calls x_name.
  template <class X>
  void check(const char* function, Kind kind, const char* x_name, const X& x) const {
    if (dimensions_.empty() || kind_ != kind) fail_kind(function, kind);
    const auto dims = dimensions_of(x);
    if (!std::equal(dims.begin(), dims.end(), dimensions_.begin(), dimensions_.end())) {
      fail_dimensions(function, x_name, dims, "in the last forward it was", dimensions_);
    }
  }

 private:
  BATCHNORM_COLD [[noreturn]] void fail_kind(const char* function, Kind wanted) const {
    if (dimensions_.empty()) fail(function, "there has been no forward");
    const auto name = [](Kind kind) -> std::string {
      return kind == Kind::plain ? "forward" : kind == Kind::add ? "forward_add" : "forward_weighted";
    };
    fail(function, "the last forward was " + name(kind_) + ", not " + name(wanted));
  }

  Kind kind_ = Kind::plain;
  Statistics statistics_ = Statistics::of_batch;
  std::vector<Index> dimensions_;  // none, where there has been no forward
};

}  // namespace batchnorm::detail
