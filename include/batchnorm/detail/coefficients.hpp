#pragma once

#include <array>

#include "batchnorm/detail/lanes.hpp"

// Where the coefficients of a formula lie in a workspace.

namespace batchnorm::detail {

/// Hands out a workspace piece by piece, each piece at a cache line boundary.
template <class T>
class Slices {
 public:
  explicit Slices(T* memory) : next_(memory) {}
  static Index padded(Index values) { return round_up(values, pack_bytes); }
  T* take(Index values) {
    T* const slice = next_;
    next_ += padded(values);
    return slice;
  }

 private:
  T* next_;
};

/// Arrays of coefficients: room for `values`, one for every channel at least, and for each worker for one of every
/// column. Each begins `lane` values behind a cache line's beginning.
template <class Compute, std::size_t Count>
class CoefficientArrays {
 public:
  using Arrays = std::array<Compute*, Count>;

  CoefficientArrays(Index values, Index columns, Index lane)
      : length_(values + 2 * max_lanes), columns_(columns == 0 ? 0 : columns + max_lanes), lane_(lane) {}

  Index computes(Index workers) const {
    return static_cast<Index>(Count) * (Slices<Compute>::padded(length_) + workers * Slices<Compute>::padded(columns_));
  }

  void use(Compute* computes) {
    Slices<Compute> slices(computes);
    for (Compute*& array : per_channel_) array = slices.take(length_) + lane_;
    scratch_ = slices.take(0);
  }

  const Arrays& per_channel() const { return per_channel_; }
  Arrays per_column(Index worker) const {
    Slices<Compute> slices(scratch_ + worker * static_cast<Index>(Count) * Slices<Compute>::padded(columns_));
    Arrays arrays;
    for (Compute*& array : arrays) array = slices.take(columns_) + lane_;
    return arrays;
  }

 private:
  Index length_, columns_, lane_;
  Arrays per_channel_{};
  Compute* scratch_ = nullptr;
};

}  // namespace batchnorm::detail
