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
  detail::dispatch_narrow(ChannelLoop<Statistic, F>{begin, end, f});
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

/// 1 / sqrt(m2 / count + epsilon), in place of m2, with a single division; 0 where both are 0, so that a constant
/// channel gives beta then too.
template <class L>
BATCHNORM_INLINE void invert_std(typename L::V& m2, const typename L::Scalar& count, double epsilon) {
  using Statistic = typename L::Scalar;
  const typename L::V sum = m2 + count * Statistic(epsilon), zero = sum - sum;
  typename L::V inv_std = count / sum;
  if constexpr (L::bytes == 0) {
    using std::sqrt;
    inv_std = sqrt(inv_std);
  } else {
    L::square_root(inv_std);
  }
  m2 = sum == Statistic(0) ? zero : inv_std;
}

}  // namespace batchnorm::detail
