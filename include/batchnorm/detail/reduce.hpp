#pragma once

#include <array>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/grid.hpp"

// Walks a part of a tensor and sums a formula over it: reads each input once. Float sums stay short: a tile of
// `tile_rows` vectors, then a block of `block_rows`; blocks merge in double.

namespace batchnorm::detail {

inline constexpr int tile_rows = 8;

/// Memory for one part at a time; each array has room for max_columns values and one pack more.
template <class Compute, class Statistic>
struct ReduceScratch {
  Compute *center, *sum, *product_sum;
  Statistic *mean, *first, *second, *block_first, *block_second;
};

/// `first` and `second` have one entry for each channel of the tensor; the kernel writes those of the part's channels.
template <class T, class Compute_, class Statistic_, class Formula_>
struct ReduceArguments {
  using Scalar = T;
  using Compute = Compute_;
  using Statistic = Statistic_;
  using Formula = Formula_;
  Grid grid;
  Part part;
  std::array<View<const T>, Formula::inputs> in;
  const Statistic* mean;  // GradientFormula: of every channel
  Statistic* first;
  Statistic* second;
  ReduceScratch<Compute, Statistic> scratch;
};

/// Adds `Rows` vectors, `stride` apart, to a sum of their own first: short sums round less, and need not wait. Of a
/// tail only the last `keep` lanes count.
template <class L, class Formula, int Rows, bool IsTail = false>
BATCHNORM_INLINE void accumulate_tile(const typename L::Scalar* const (&in)[Formula::inputs],
                                      const Index (&stride)[Formula::inputs], const typename L::V& center,
                                      typename L::V& sum, typename L::V& product_sum, Index keep = L::count) {
  typename L::V tile_sum, tile_product_sum;
  L::clear(tile_sum);
  L::clear(tile_product_sum);
#pragma GCC unroll 8
  for (int row = 0; row < Rows; ++row) {
    typename L::V v[Formula::inputs];
#pragma GCC unroll 8
    for (int k = 0; k < Formula::inputs; ++k) L::load(v[k], in[k] + row * stride[k]);
    if constexpr (IsTail) Formula::template keep_last<L>(v, center, keep);
    Formula::accumulate(v, center, tile_sum, tile_product_sum);
  }
  sum += tile_sum;
  product_sum += tile_product_sum;
}

// ---- By runs: one channel at a time.

/// Sums `length` contiguous values into `per_pack` vectors. Where the last ones fill no vector, it is read shifted
/// back, over values of the same run that have been counted.
template <class L, class Formula>
BATCHNORM_INLINE void accumulate_run(const typename L::Scalar* const (&in)[Formula::inputs], Index length,
                                     const typename L::V& center, typename L::V (&sum)[L::per_pack],
                                     typename L::V (&product_sum)[L::per_pack]) {
  constexpr Index pack = L::count * L::per_pack;
  const typename L::Scalar* at[Formula::inputs];
  Index stride[Formula::inputs];
  std::fill_n(stride, Formula::inputs, pack);
  Index i = 0;
  for (; i + tile_rows * pack <= length; i += tile_rows * pack) {
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) {
#pragma GCC unroll 8
      for (int k = 0; k < Formula::inputs; ++k) at[k] = in[k] + i + v * L::count;
      accumulate_tile<L, Formula, tile_rows>(at, stride, center, sum[v], product_sum[v]);
    }
  }
  for (; i + pack <= length; i += pack) {
#pragma GCC unroll 4
    for (int v = 0; v < L::per_pack; ++v) {
#pragma GCC unroll 8
      for (int k = 0; k < Formula::inputs; ++k) at[k] = in[k] + i + v * L::count;
      accumulate_tile<L, Formula, 1>(at, stride, center, sum[v], product_sum[v]);
    }
  }
  for (; i < length; i += L::count) {
    const Index keep = std::min<Index>(length - i, L::count);
#pragma GCC unroll 8
    for (int k = 0; k < Formula::inputs; ++k) at[k] = in[k] + i + keep - L::count;
    accumulate_tile<L, Formula, 1, true>(at, stride, center, sum[0], product_sum[0], keep);
  }
}

/// The sum over all lanes: in Statistic, by halves, in the same order on every target.
template <class L, class Statistic>
BATCHNORM_INLINE Statistic sum_lanes(const typename L::V (&v)[L::per_pack]) {
  if constexpr (L::bytes == 0) {
    return Statistic(v[0]);
  } else {
    using Half = Lanes<typename L::Compute, Statistic, L::bytes / 2>;
    constexpr int halves = L::count * L::per_pack / 2;
    typename L::Compute raw[2 * halves];
    std::memcpy(raw, v, sizeof raw);
    Statistic total[halves];
#pragma GCC unroll 4
    for (int k = 0; k < halves; k += Half::count) {
      typename Half::V low, high;
      Half::load(low, raw + k);
      Half::load(high, raw + halves + k);
      low += high;
      std::memcpy(total + k, &low, sizeof low);
    }
#pragma GCC unroll 4
    for (int half = halves / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
      for (int k = 0; k < half; ++k) total[k] += total[k + half];
    }
    return total[0];
  }
}

/// A value near the mean, to be subtracted from all: the closer it is, the fewer digits the sums lose. From samples all
/// over the run, for its beginning may be a border.
template <class L>
BATCHNORM_INLINE typename L::Compute pilot_mean(const typename L::Scalar* x, Index length) {
  using Compute = typename L::Compute;
  constexpr Index samples = 16;
  const Compute first = static_cast<Compute>(x[0]);
  Compute sums[4] = {Compute(0), Compute(0), Compute(0), Compute(0)};
  for (Index k = 0; k < samples; ++k) sums[k % 4] += static_cast<Compute>(x[k * length / samples]) - first;
  return first + ((sums[0] + sums[1]) + (sums[2] + sums[3])) / Compute(samples);
}

/// The positions [begin, end) of one channel, as sums about `center` in L::Compute.
template <class L, class Arguments>
BATCHNORM_INLINE void sum_block(const Arguments& a, Index channel, Index begin, Index end,
                                const typename L::Compute& center, typename Arguments::Statistic (&sums)[2]) {
  using Formula = typename Arguments::Formula;
  typename L::V center_lanes, sum[L::per_pack], product_sum[L::per_pack];
  L::fill(center_lanes, center);
#pragma GCC unroll 8
  for (int v = 0; v < L::per_pack; ++v) L::clear(sum[v]);
#pragma GCC unroll 8
  for (int v = 0; v < L::per_pack; ++v) L::clear(product_sum[v]);
  const Index pieces = a.grid.pieces_per_run();
  for (Index p = begin; p < end; ++p) {
    const typename L::Scalar* in[Formula::inputs];
#pragma GCC unroll 8
    for (int k = 0; k < Formula::inputs; ++k) {
      const auto& view = a.in[static_cast<std::size_t>(k)];
      in[k] = view.data + p / pieces * view.outer_stride + channel * view.channel_stride + a.grid.piece_begin(p);
    }
    accumulate_run<L, Formula>(in, a.grid.piece_size(p), center_lanes, sum, product_sum);
  }
  sums[0] = sum_lanes<L, typename Arguments::Statistic>(sum);
  sums[1] = sum_lanes<L, typename Arguments::Statistic>(product_sum);
}

/// Takes the sums of one more block of `size` values into a channel that has `before` of them.
template <class Arguments, class Center>
BATCHNORM_INLINE void merge_block(const Arguments& a, Index channel, const Center& center,
                                  const typename Arguments::Statistic (&sums)[2], Index before, Index size) {
  using Statistic = typename Arguments::Statistic;
  using Formula = typename Arguments::Formula;
  const Statistic n = Statistic(size), total = Statistic(before + size);
  const Statistic mean = a.mean != nullptr ? a.mean[channel] : Statistic(0);
  Statistic first, second;
  Formula::finish(Statistic(center), mean, sums[0], sums[1], Statistic(1) / n, first, second);
  if (before == 0) {
    a.first[channel] = first;
    a.second[channel] = second;
  } else {
    const Statistic share = n / total;
    Formula::merge(a.first[channel], a.second[channel], first, second, share, Statistic(before) * share);
  }
}

/// The same sums in Statistic, one value at a time, for a block that left the range of Compute.
template <class Arguments>
[[gnu::noinline, gnu::cold]] void sum_block_wide(const Arguments& a, Index channel, Index begin, Index end,
                                                 const typename Arguments::Statistic& center,
                                                 typename Arguments::Statistic (&sums)[2]) {
  sum_block<Lanes<typename Arguments::Scalar, typename Arguments::Statistic, 0>>(a, channel, begin, end, center, sums);
}

template <class L, class Arguments>
BATCHNORM_INLINE void reduce_runs(const Arguments& a) {
  using Statistic = typename Arguments::Statistic;
  using Compute = typename Arguments::Compute;
  using Formula = typename Arguments::Formula;
  const Index block = std::max<Index>(piece_length / std::max<Index>(a.grid.shape.inner, 1), 1);
  for (Index c = a.part.channel_begin; c < a.part.channel_end; ++c) {
    for (Index p = a.part.begin; p < a.part.end; p += block) {
      const Index end = std::min(p + block, a.part.end);
      const Index before = a.grid.values_before(p) - a.grid.values_before(a.part.begin);
      const Index size = a.grid.values_before(end) - a.grid.values_before(p);
      const typename Arguments::Scalar* x = a.in[0].data + p / a.grid.pieces_per_run() * a.in[0].outer_stride +
                                            c * a.in[0].channel_stride + a.grid.piece_begin(p);
      // After the first block the mean so far is nearest, and keeps a constant exact.
      const Compute center = !Formula::finds_mean ? static_cast<Compute>(a.mean[c])
                             : before == 0        ? pilot_mean<L>(x, a.grid.piece_size(p))
                                                  : static_cast<Compute>(a.first[c]);
      Statistic sums[2], exact_center = Statistic(center);
      sum_block<L>(a, c, p, end, center, sums);
      if constexpr (!std::is_same_v<Compute, Statistic>) {
        if (!Formula::is_reliable(static_cast<Compute>(sums[0]), static_cast<Compute>(sums[1]),
                                  static_cast<Compute>(size))) {
          exact_center = Formula::finds_mean ? static_cast<Statistic>(*x) : a.mean[c];
          sum_block_wide(a, c, p, end, exact_center, sums);
        }
      }
      merge_block(a, c, exact_center, sums, before, size);
    }
  }
}

// ---- By columns: whole rows, `tile_rows` at a time.

/// Up to block_rows rows of `columns` values.
template <class Arguments>
struct ColumnBlock {
  std::array<const typename Arguments::Scalar*, Arguments::Formula::inputs> in;
  std::array<Index, Arguments::Formula::inputs> stride;
  Index rows;
  Index columns;
};

/// One vector of columns at `column`, over `Rows` rows from `row`.
template <class L, int Rows, bool IsTail, class Arguments>
BATCHNORM_INLINE void accumulate_columns(const Arguments& a, const ColumnBlock<Arguments>& block, Index row,
                                         Index column, Index keep = L::count) {
  using Formula = typename Arguments::Formula;
  using Sums = typename L::Computed;
  const typename L::Scalar* at[Formula::inputs];
  Index stride[Formula::inputs];
#pragma GCC unroll 8
  for (std::size_t k = 0; k < Formula::inputs; ++k) {
    at[k] = block.in[k] + row * block.stride[k] + column;
    stride[k] = block.stride[k];
  }
  typename L::V center, sum, product_sum;
  Sums::load(center, a.scratch.center + column);
  Sums::load(sum, a.scratch.sum + column);
  Sums::load(product_sum, a.scratch.product_sum + column);
  accumulate_tile<L, Formula, Rows, IsTail>(at, stride, center, sum, product_sum, keep);
  Sums::store(a.scratch.sum + column, sum);
  Sums::store(a.scratch.product_sum + column, product_sum);
}

template <class L, int Rows, class Arguments>
BATCHNORM_INLINE void accumulate_rows(const Arguments& a, const ColumnBlock<Arguments>& block, Index row) {
  Index j = 0;
  for (; j + L::count <= block.columns; j += L::count) accumulate_columns<L, Rows, false>(a, block, row, j);
  // The last vector is shifted back, over columns that have been counted.
  if (j < block.columns) {
    accumulate_columns<L, Rows, true>(a, block, row, block.columns - L::count, block.columns - j);
  }
}

template <class L, class Arguments>
BATCHNORM_INLINE void sum_rows(const Arguments& a, const ColumnBlock<Arguments>& block) {
  std::fill_n(a.scratch.sum, block.columns + max_lanes, typename L::Compute(0));
  std::fill_n(a.scratch.product_sum, block.columns + max_lanes, typename L::Compute(0));
  Index row = 0;
  for (; row + tile_rows <= block.rows; row += tile_rows) accumulate_rows<L, tile_rows>(a, block, row);
  for (; row < block.rows; ++row) accumulate_rows<L, 1>(a, block, row);
}

/// Centers of the first block: the means of a few rows all over it, column by column.
template <class L, class Arguments>
BATCHNORM_INLINE void pilot_means(const Arguments& a, const ColumnBlock<Arguments>& block) {
  using Compute = typename L::Compute;
  const Index samples = std::min<Index>(block.rows, tile_rows);
  const Compute inv_samples = Compute(1) / static_cast<Compute>(samples);
  for (Index j = 0; j < block.columns; j += L::count) {
    const Index column = std::min<Index>(j, block.columns - L::count);
    typename L::V first, v, sum;
    L::load(first, block.in[0] + column);
    L::clear(sum);
    for (Index k = 1; k < samples; ++k) {
      L::load(v, block.in[0] + k * block.rows / samples * block.stride[0] + column);
      sum += v - first;
    }
    first += sum * inv_samples;
    L::Computed::store(a.scratch.center + column, first);
  }
}

/// Centers from statistics that are known: the mean so far, or that of the whole batch.
template <class Compute, class Statistic>
BATCHNORM_INLINE void round_means(const Statistic* mean, Index columns, Compute* center) {
  for (Index j = 0; j < columns; ++j) center[j] = static_cast<Compute>(mean[j]);
}

/// Turns the sums of a block of `rows` rows into block_first and block_second.
template <class L, class Arguments>
BATCHNORM_INLINE void finish_columns(const Arguments& a, const ColumnBlock<Arguments>& block) {
  using Statistic = typename Arguments::Statistic;
  using Formula = typename Arguments::Formula;
  constexpr int bytes = L::bytes * static_cast<int>(sizeof(typename L::Compute)) / static_cast<int>(sizeof(Statistic));
  using From = Lanes<typename L::Compute, Statistic, bytes>;
  using To = typename From::Computed;
  const auto& s = a.scratch;
  const Statistic inv_count = Statistic(1) / Statistic(block.rows);
  for (Index j = 0; j < block.columns; j += From::count) {
    typename From::V center, mean, sum, product_sum, first, second;
    From::load(center, s.center + j);
    From::load(sum, s.sum + j);
    From::load(product_sum, s.product_sum + j);
    if constexpr (!Formula::finds_mean) To::load(mean, s.mean + j);
    Formula::finish(center, mean, sum, product_sum, inv_count, first, second);
    To::store(s.block_first + j, first);
    To::store(s.block_second + j, second);
  }
}

/// The same sums of one column in Statistic, one value at a time, for a block that left the range of Compute.
template <class Arguments>
[[gnu::noinline, gnu::cold]] void finish_column_wide(const Arguments& a, const ColumnBlock<Arguments>& block,
                                                     Index column) {
  using Statistic = typename Arguments::Statistic;
  using Formula = typename Arguments::Formula;
  using L = Lanes<typename Arguments::Scalar, Statistic, 0>;
  const Statistic mean = Formula::finds_mean ? static_cast<Statistic>(block.in[0][column]) : a.scratch.mean[column];
  Statistic sum(0), product_sum(0);
  for (Index row = 0; row < block.rows; ++row) {
    Statistic v[Formula::inputs];
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) L::load(v[k], block.in[k] + row * block.stride[k] + column);
    Formula::accumulate(v, mean, sum, product_sum);
  }
  Formula::finish(mean, mean, sum, product_sum, Statistic(1) / Statistic(block.rows), a.scratch.block_first[column],
                  a.scratch.block_second[column]);
}

template <class Arguments>
BATCHNORM_INLINE void repair_columns(const Arguments& a, const ColumnBlock<Arguments>& block) {
  using Compute = typename Arguments::Compute;
  if constexpr (!std::is_same_v<Compute, typename Arguments::Statistic>) {
    for (Index j = 0; j < block.columns; ++j) {
      const auto& s = a.scratch;
      if (!Arguments::Formula::is_reliable(s.sum[j], s.product_sum[j], static_cast<Compute>(block.rows))) {
        finish_column_wide(a, block, j);
      }
    }
  }
}

/// Takes the block into columns that have `before` rows.
template <class L, class Arguments>
BATCHNORM_INLINE void merge_columns(const Arguments& a, const ColumnBlock<Arguments>& block, Index before) {
  using Statistic = typename Arguments::Statistic;
  using S = Lanes<Statistic, Statistic, L::bytes>;
  const auto& s = a.scratch;
  const Statistic share = Statistic(block.rows) / Statistic(before + block.rows);
  const Statistic cross = Statistic(before) * share;
  for (Index j = 0; j < block.columns; j += S::count) {
    typename S::V first, second, block_first, block_second;
    S::load(first, s.first + j);
    S::load(second, s.second + j);
    S::load(block_first, s.block_first + j);
    S::load(block_second, s.block_second + j);
    Arguments::Formula::merge(first, second, block_first, block_second, share, cross);
    S::store(s.first + j, first);
    S::store(s.second + j, second);
  }
}

/// Merges the columns of each channel, `rows` values each, into the channels, which have `before` values.
template <class Arguments>
void merge_into_channels(const Arguments& a, Index fold, Index rows, Index before) {
  using Statistic = typename Arguments::Statistic;
  const Index channels = a.part.channels(), inner = a.grid.shape.inner;
  Statistic* first = a.first + a.part.channel_begin;
  Statistic* second = a.second + a.part.channel_begin;
  for (Index k = 0; k < fold * inner; ++k) {
    const Index offset = k / inner * channels * inner + k % inner;
    const Statistic* column_first = a.scratch.first + offset;
    const Statistic* column_second = a.scratch.second + offset;
    if (before + k == 0) {
      for (Index c = 0; c < channels; ++c) first[c] = column_first[c * inner];
      for (Index c = 0; c < channels; ++c) second[c] = column_second[c * inner];
    } else {
      const Statistic share = Statistic(rows) / Statistic(before + (k + 1) * rows);
      const Statistic cross = Statistic(before + k * rows) * share;
      for (Index c = 0; c < channels; ++c) {
        Arguments::Formula::merge(first[c], second[c], column_first[c * inner], column_second[c * inner], share, cross);
      }
    }
  }
}

template <class Arguments>
void expand_means(const Arguments& a, Index fold) {
  const Index inner = a.grid.shape.inner, width = a.part.channels() * inner;
  for (Index j = 0; j < fold * width; ++j) a.scratch.mean[j] = a.mean[a.part.channel_begin + j % width / inner];
}

/// Reduces `rows` positions from `begin`, `fold` of them to a row, into channels that have `before` values.
template <class L, class Arguments>
BATCHNORM_INLINE void reduce_rows(const Arguments& a, Index begin, Index rows, Index fold, Index before) {
  using Formula = typename Arguments::Formula;
  ColumnBlock<Arguments> block;
  block.columns = fold * a.part.channels() * a.grid.shape.inner;
  if constexpr (!Formula::finds_mean) {
    expand_means(a, fold);
    round_means(a.scratch.mean, block.columns, a.scratch.center);
  }
  for (Index row = 0; row < rows / fold; row += block.rows) {
    block.rows = std::min(block_rows, rows / fold - row);
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) {
      block.stride[k] = a.in[k].outer_stride * fold;
      block.in[k] = a.in[k].data + begin * a.in[k].outer_stride + row * block.stride[k] +
                    a.part.channel_begin * a.grid.shape.inner;
    }
    if constexpr (Formula::finds_mean) {
      // After the first block the mean so far is nearest, and keeps a constant exact.
      if (row == 0) pilot_means<L>(a, block);
      if (row != 0) round_means(a.scratch.first, block.columns, a.scratch.center);
    }
    sum_rows<L>(a, block);
    finish_columns<L>(a, block);
    repair_columns(a, block);
    if (row == 0) std::copy_n(a.scratch.block_first, block.columns, a.scratch.first);
    if (row == 0) std::copy_n(a.scratch.block_second, block.columns, a.scratch.second);
    if (row != 0) merge_columns<L>(a, block, row);
  }
  merge_into_channels(a, fold, rows / fold, before);
}

// ---- The kernel.

/// For parts with too few columns, or too short a run, for a vector; and for the scalar target.
template <class Arguments>
[[gnu::noinline]] void reduce_rows_scalar(const Arguments& a, Index begin, Index rows, Index before) {
  using L = Lanes<typename Arguments::Scalar, typename Arguments::Compute, 0>;
  reduce_rows<L>(a, begin, rows, 1, before);
}

template <class Arguments>
[[gnu::noinline]] void reduce_runs_scalar(const Arguments& a) {
  reduce_runs<Lanes<typename Arguments::Scalar, typename Arguments::Compute, 0>>(a);
}

struct ReduceKernel {
  template <int Bytes, class Arguments>
  BATCHNORM_INLINE static void run(const Arguments& a) {
    using L = Lanes<typename Arguments::Scalar, typename Arguments::Compute, Bytes>;
    const Index inner = a.grid.shape.inner, width = a.part.channels() * inner;
    if (!a.grid.by_columns) {
      if constexpr (Bytes != 0) {
        if (inner >= L::count) return reduce_runs<L>(a);
      }
      return reduce_runs_scalar(a);
    }
    Index begin = a.part.begin;
    if constexpr (Bytes != 0) {
      for (const Index fold : {a.grid.fold, Index(1)}) {
        const Index rows = (a.part.end - begin) / fold * fold;
        if (rows == 0 || fold * width < L::count) continue;
        reduce_rows<L>(a, begin, rows, fold, (begin - a.part.begin) * inner);
        begin += rows;
      }
    }
    if (begin < a.part.end) reduce_rows_scalar(a, begin, a.part.end - begin, (begin - a.part.begin) * inner);
  }
};

}  // namespace batchnorm::detail
