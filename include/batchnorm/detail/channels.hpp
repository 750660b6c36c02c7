#pragma once

#include <cmath>

#include "batchnorm/detail/targets.hpp"

// What runs once for each channel, not for each value. It is computed in Statistic, in vectors of at most 32 bytes: 64
// gain nothing.

namespace batchnorm::detail {

template <class Statistic, class F>
struct ChannelLoop {
  using Compute = Statistic;
  Index begin, end;
  const F& f;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Statistic, Statistic, Bytes>;
    Index c = begin;
    for (; c + L::count <= end; c += L::count) f(L{}, c);
    for (; c < end; ++c) f(Lanes<Statistic, Statistic, 0>{}, c);
  }
};

/// Calls f(lanes, c) for all channels of a range, a vector of them at a time.
template <class Statistic, class F>
void for_channels(Index begin, Index end, const F& f) {
  dispatch_narrow(ChannelLoop<Statistic, F>{begin, end, f});
}

template <class L, class T>
BATCHNORM_INLINE void load_channels(typename L::V& v, const T* from) {
  LanesOver<L, T>::load(v, from);
}

/// `otherwise` where there is no array.
template <class L, class T>
BATCHNORM_INLINE void load_channels(typename L::V& v, const T* from, Index c, double otherwise) {
  if (from == nullptr) {
    L::fill(v, typename L::Scalar(otherwise));
  } else {
    load_channels<L>(v, from + c);
  }
}

/// Rounds to T.
template <class L, class T>
BATCHNORM_INLINE void store_channels(T* to, const typename L::V& v) {
  LanesOver<L, T>::store(to, v);
}

/// 1 / sqrt(var + epsilon), in place of var; 0 where both are 0, so that a constant channel gives beta then too.
template <class L>
BATCHNORM_INLINE void invert_std(typename L::V& var, double epsilon) {
  using Statistic = typename L::Scalar;
  const typename L::V sum = var + Statistic(epsilon);
  if constexpr (L::bytes == 0) {
    using std::sqrt;
    var = sum == Statistic(0) ? Statistic(0) : Statistic(Statistic(1) / sqrt(sum));
  } else {
    typename L::V root = sum;
    L::square_root(root);
    const typename L::V inverse = Statistic(1) / root;
    var = sum == Statistic(0) ? typename L::V{} : inverse;
  }
}

}  // namespace batchnorm::detail
