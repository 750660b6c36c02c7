#pragma once

#include <algorithm>

#include "batchnorm/detail/channels.hpp"
#include "batchnorm/detail/sum_tiles.hpp"

// From the sums of columns to the results of channels.

namespace batchnorm::detail {

/// What a block gives for each channel: sums about a center.
template <class Statistic>
struct ChannelSums {
  Statistic *center, *sum, *product_sum;
};

/// The columns of each channel, together, without their errors.
template <class Compute_, class Statistic>
struct JoinColumns {
  using Compute = Compute_;
  const Compute* center;
  Sums<Compute*> columns;
  Index channels, inner, fold;  // columns: fold x channels x inner
  ChannelSums<Statistic> to;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Statistic, Bytes>;
    Index c = 0;
    if (inner == 1) {
      for (; c + L::count <= channels; c += L::count) join_across<L>(c);
      for (; c < channels; ++c) join_across<Single>(c);
    }
    for (; c < channels; ++c) join_channel<L>(c);
  }

 private:
  using Single = Lanes<Compute, Statistic, 0>;

  template <class L>
  BATCHNORM_INLINE void add(Index column, typename L::V& sum, typename L::V& product_sum) const {
    typename L::V value, error;
    L::load(value, columns.sum + column);
    L::load(error, columns.sum_error + column);
    sum += value - error;
    L::load(value, columns.product_sum + column);
    L::load(error, columns.product_error + column);
    product_sum += value - error;
  }

  /// Channels side by side, one column each in a row.
  template <class L>
  BATCHNORM_INLINE void join_across(Index c) const {
    typename L::V center_v, sum, product_sum;
    L::clear(sum);
    L::clear(product_sum);
    for (Index k = 0; k < fold; ++k) add<L>(k * channels + c, sum, product_sum);
    L::load(center_v, center + c);
    L::Computed::store(to.center + c, center_v);
    L::Computed::store(to.sum + c, sum);
    L::Computed::store(to.product_sum + c, product_sum);
  }

  template <class L>
  BATCHNORM_INLINE void join_channel(Index c) const {
    typename L::V sums, product_sums;
    L::clear(sums);
    L::clear(product_sums);
    Statistic sum(0), product_sum(0);
    for (Index k = 0; k < fold; ++k) {
      Index column = (k * channels + c) * inner;
      const Index end = column + inner;
      for (; column + L::count <= end; column += L::count) add<L>(column, sums, product_sums);
      for (; column < end; ++column) add<Single>(column, sum, product_sum);
    }
    to.center[c] = static_cast<Statistic>(center[c * inner]);
    to.sum[c] = sum + sum_lanes<L>(sums);
    to.product_sum[c] = product_sum + sum_lanes<L>(product_sums);
  }

  template <class L>
  BATCHNORM_INLINE static Statistic sum_lanes(const typename L::V& v) {
    const typename L::V in_memory = v;  // a copy: v itself stays in a register while it is added to
    Statistic lanes[L::count];
    L::Computed::store(lanes, in_memory);
#pragma GCC unroll 4
    for (int half = L::count / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
      for (int k = 0; k < half; ++k) lanes[k] += lanes[k + half];
    }
    return lanes[0];
  }
};

template <class Formula, class Statistic>
struct CheckChannels {
  using Compute = Statistic;
  const ChannelSums<Statistic>& sums;
  Index channels;
  const Statistic& count;
  bool first_block;
  bool& all_reliable;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    Index c = 0;
    const bool vectors_reliable = check_from<Lanes<Statistic, Statistic, Bytes>>(c);
    all_reliable = check_from<Lanes<Statistic, Statistic, 0>>(c) && vectors_reliable;
  }

 private:
  /// The vectors of channels from c on.
  template <class L>
  BATCHNORM_INLINE bool check_from(Index& c) const {
    typename L::V sum, product_sum, reliable, all;
    L::fill(all, Statistic(1));
    for (; c + L::count <= channels; c += L::count) {
      L::load(sum, sums.sum + c);
      L::load(product_sum, sums.product_sum + c);
      Formula::check(sum, product_sum, count, first_block, reliable);
      all *= reliable;
    }
    Statistic lanes[L::count];
    L::store(lanes, all);
    return std::count(lanes, lanes + L::count, Statistic(1)) == L::count;
  }
};

/// Whether Formula::check finds the sums of all channels reliable, of `count` values each.
template <class Formula, class Statistic>
bool all_reliable(const ChannelSums<Statistic>& sums, Index channels, const Statistic& count, bool first_block) {
  bool result = true;
  detail::dispatch_narrow(CheckChannels<Formula, Statistic>{sums, channels, count, first_block, result});
  return result;
}

/// Sums of `count` values per channel become what Formula gives, in place: first in `sum`, second in `product_sum`.
template <class Formula, class Statistic>
void finish_channels(const ChannelSums<Statistic>& sums, const Statistic* mean, Index channels,
                     const Statistic& count) {
  const Statistic inv_count = Statistic(1) / count;
  for_channels<Statistic>(0, channels, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
    typename L::V center_v, mean_v, sum, product_sum, first, second;
    L::load(center_v, sums.center + c);
    L::load(mean_v, mean + c);
    L::load(sum, sums.sum + c);
    L::load(product_sum, sums.product_sum + c);
    Formula::finish(center_v, mean_v, sum, product_sum, inv_count, first, second);
    L::store(sums.sum + c, first);
    L::store(sums.product_sum + c, second);
  });
}

/// Takes `count` more values per channel into first and second, which have `before`.
template <class Formula, class Statistic>
void merge_channels(Statistic* first, Statistic* second, const Statistic* other_first, const Statistic* other_second,
                    Index channels, const Statistic& before, const Statistic& count) {
  if (count == Statistic(0)) return;
  if (before == Statistic(0)) {
    std::copy_n(other_first, channels, first);
    std::copy_n(other_second, channels, second);
    return;
  }
  const Statistic share = count / (before + count);
  const Statistic cross = before * share;
  for_channels<Statistic>(0, channels, [&]<class L>(L, Index c) BATCHNORM_INLINE_LAMBDA {
    typename L::V a, b, other_a, other_b;
    L::load(a, first + c);
    L::load(b, second + c);
    L::load(other_a, other_first + c);
    L::load(other_b, other_second + c);
    Formula::merge(a, b, other_a, other_b, share, cross);
    L::store(first + c, a);
    L::store(second + c, b);
  });
}

}  // namespace batchnorm::detail
