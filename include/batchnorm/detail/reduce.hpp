#pragma once

#include <algorithm>
#include <array>
#include <numeric>

#include "batchnorm/detail/centers.hpp"
#include "batchnorm/detail/grid.hpp"
#include "batchnorm/detail/join.hpp"
#include "batchnorm/detail/sum_again.hpp"
#include "batchnorm/detail/sum_rows.hpp"
#include "batchnorm/detail/sum_runs.hpp"
#include "batchnorm/detail/targets.hpp"

// Sums a formula over a part of a tensor, block by block. Of each block the kernels sum columns in Compute: the columns
// of rows, or the lanes of runs. Then the columns of each channel are joined in Statistic, taken again where they left
// the range of Compute, and merged into what the channel has from the blocks before.

namespace batchnorm::detail {

/// Memory for one block at a time.
template <class Compute, class Statistic, class Formula>
struct ReduceScratch {
  Compute* center;                                // of every column
  FurtherCoefficients<Compute, Formula> further;  // of every column
  Sums<Compute*> columns;                         // of every column
  PartialSums<Compute*> partial;                  // of every column
  ChannelSums<Statistic> block;                   // of every channel
};

/// The sum of the weights [begin, end), in several sums side by side: one would wait for each addition.
template <class Statistic, class T>
Statistic sum_weights(const T* weights, Index begin, Index end) {
  constexpr Index side_by_side = 8;
  std::array<Statistic, side_by_side> sums;
  sums.fill(Statistic(0));
  Index k = begin;
  for (; k + side_by_side <= end; k += side_by_side) {
#pragma GCC unroll 8
    for (Index j = 0; j < side_by_side; ++j)
      sums[static_cast<std::size_t>(j)] += static_cast<Statistic>(weights[k + j]);
  }
  for (; k < end; ++k) sums[0] += static_cast<Statistic>(weights[k]);
  return std::accumulate(sums.begin(), sums.end(), Statistic(0));
}

/// Values per channel in the positions [begin, end), or the sum of their weights.
template <class Formula, class In>
typename In::Statistic count_between(const Grid& grid, const In& in, Index begin, Index end) {
  using Statistic = typename In::Statistic;
  const Index first = grid.values_before(begin), last = grid.values_before(end);
  if constexpr (!has_weights<Formula>) {
    return Statistic(static_cast<double>(last - first));
  } else {
    return sum_weights<Statistic>(in.template get<Formula::weights>().data, first, last);
  }
}

/// `first` and `second` have one entry for each channel of the tensor; those of the part's channels are written.
template <class In, class Formula>
class PartReduction {
 public:
  using Compute = typename In::Compute;
  using Statistic = typename In::Statistic;
  /// By runs: those that have room for their lanes.
  static constexpr Index channels_together = max_columns / pack_lanes<Compute>;
  const Grid& grid;
  Part part;
  const In& in;
  const Statistic* mean;                          // of every channel, if the formula does not find it
  FurtherCoefficients<Compute, Formula> further;  // of every channel
  Statistic* first;
  Statistic* second;
  ReduceScratch<Compute, Statistic, Formula> scratch;

  void run() const {
    if constexpr (has_weights<Formula>) {
      for (Statistic* const result : {first, second}) {
        std::fill(result + part.channel_begin, result + part.channel_end, Statistic(0));
      }
    }
    if (grid.by_columns) {
      fill_further();
      const Index folded = part.end - (part.end - part.begin) % grid.fold;
      Statistic before(0);
      reduce_rows(part.begin, folded, grid.fold, before);
      reduce_rows(folded, part.end, 1, before);
    } else {
      for (Index c = part.channel_begin; c < part.channel_end; c += channels_together) {
        reduce_runs(c, std::min(c + channels_together, part.channel_end));
      }
    }
  }

 private:
  using Kernel = SumRuns<In, Formula>;
  static constexpr bool widens = !std::is_same_v<Compute, Statistic>;
  /// So few instructions for each value that the core has the loads of the next ones under way.
  static constexpr bool is_light =
      Formula::coefficients == 1 && !has_weights<Formula> && In::tensors == static_cast<Index>(In::count);

  /// What is summed at a time: positions of channels.
  struct Block {
    Index begin, end;
    Index channel_begin, channel_end;
    Statistic before;  // values that each channel had before, or their weight
    Statistic count;   // values of each channel, or their weight
    Index channels() const { return channel_end - channel_begin; }
  };

  Block block_of(Index begin, Index end, Index channel_begin, Index channel_end, const Statistic& before) const {
    return {begin, end, channel_begin, channel_end, before, count_between<Formula>(grid, in, begin, end)};
  }

  /// Positions [begin, end) of a channel: whole runs, or some pieces of one.
  Lines<In> runs_of(Index c, Index begin, Index end) const {
    const Pointers<In> place(in, grid.run_of(begin), c, grid.piece_begin(begin));
    const MemoryAccess& access = memory_access();
    const bool straight =
        grid.shape.inner > (tensors_summed<In, Formula> == 1 ? access.straight_run : access.straight_runs);
    return lines_at(in, place, grid.lines_of(begin, end), grid.length_of(begin, end), ahead(straight));
  }

  /// The end of a block that begins at a position.
  Index block_end(Index begin) const {
    if (grid.pieces > 1) return std::min({begin + block_pieces, (grid.run_of(begin) + 1) * grid.pieces, part.end});
    return std::min(begin + std::max<Index>(block_length / std::max<Index>(grid.shape.inner, 1), 1), part.end);
  }

  // ---- By runs: as many channels at a time as have room for their lanes.

  void reduce_runs(Index channel_begin, Index channel_end) const {
    Statistic before(0);
    for (Index begin = part.begin, end; begin < part.end; begin = end) {
      end = block_end(begin);
      const Block block = block_of(begin, end, channel_begin, channel_end, before);
      if (block.count == Statistic(0)) continue;
      const ChannelRuns<In> runs(in, runs_of(channel_begin, block.begin, block.end), block.channels());
      find_centers(block, scratch.center, Kernel::lanes);
      FurtherCoefficients<Compute, Formula> of_block = further;
      for (Compute*& array : of_block) array += block.channel_begin;
      detail::dispatch(Kernel{runs, scratch.center, of_block, scratch.columns}, runs.runs.length);
      take_in(block, Kernel::lanes, 1);
      before += block.count;
    }
  }

  // ---- By columns: whole rows, `fold` of them read as one.

  void reduce_rows(Index begin, Index end, Index fold, Statistic& before) const {
    for (Index row = begin; row < end; row += block_rows * fold) {
      const Block block =
          block_of(row, std::min(row + block_rows * fold, end), part.channel_begin, part.channel_end, before);
      if (block.count == Statistic(0)) continue;
      const Lines<In> rows = rows_of(block, fold);
      center_columns(block, rows, fold);
      constexpr Index many_values = 256;
      const bool many = (block.end - block.begin) * grid.shape.inner >= many_values;
      const ColumnSums<Compute, Formula> columns{scratch.center, scratch.further, scratch.columns, scratch.partial};
      const bool cached = !memory_access().streams(input_bytes());
      detail::dispatch(SumRows<In, Formula>{rows, many, cached, narrow(rows.length), columns}, rows.length);
      take_in(block, grid.shape.inner, fold);
      before += block.count;
    }
  }

  Lines<In> rows_of(const Block& block, Index fold) const {
    const Index width = fold * block.channels() * grid.shape.inner;
    Lines<In> rows =
        lines_at(in, Pointers<In>(in, block.begin, block.channel_begin, 0), (block.end - block.begin) / fold, width,
                 ahead(narrow(width), min_asked_bytes(width)), fold);
    if (rows.has_gaps() && !memory_access().prefetches_over_gaps) rows.ahead = 0;
    return rows;
  }

  /// Small tensors are asked for too: what sums read has mostly left the nearer caches since it was written, x before a
  /// backward pass all of them. Rows of a page and more a core follows by itself, and a single input's of few columns.
  Index min_asked_bytes(Index width) const {
    constexpr Index page = 4096, max_narrow_columns = SumRows<In, Formula>::max_narrow_columns;
    const bool by_itself =
        width * Index(sizeof(typename In::Widest)) >= page || (In::count == 1 && width <= max_narrow_columns);
    return by_itself ? min_prefetch_bytes : memory_access().min_row_bytes;
  }

  Index input_bytes() const { return In::tensors * grid.bytes(); }
  bool narrow(Index width) const {
    return SumRows<In, Formula>::is_narrow(width) && input_bytes() <= memory_access().straight_narrow_bytes;
  }

  /// The same center for all columns of a channel.
  void center_columns(const Block& block, const Lines<In>& rows, Index fold) const {
    const Index inner = grid.shape.inner, width = block.channels() * inner;
    constexpr bool across = Formula::finds_mean && !has_weights<Formula>;
    if (across && block.before == Statistic(0) && inner == 1) {
      if constexpr (across) detail::dispatch(FindCenters<In>{rows, scratch.center}, rows.length);
      for (Index c = 0; fold > 1 && c < width; ++c) scratch.center[c] = average(scratch.center + c, fold, width);
    } else if (inner == 1) {
      find_centers(block, scratch.center, 1);
    } else {
      Compute* const of_channels = scratch.columns.sum;  // not in use yet
      find_centers(block, of_channels, 1);
      fill_channels(scratch.center, inner, of_channels, block.channels());
    }
    for (Index k = 1; k < fold; ++k) std::copy_n(scratch.center, width, scratch.center + k * width);
  }

  void fill_further() const {
    const Index width = part.channels() * grid.shape.inner;
    for (std::size_t k = 1; k < further.size(); ++k) {
      Compute* const columns = scratch.further[k];
      fill_channels(columns, grid.shape.inner, further[k] + part.channel_begin, part.channels());
      for (Index copy = 1; copy < grid.fold; ++copy) std::copy_n(columns, width, columns + copy * width);
    }
  }

  // ---- Both.

  /// Where memory is read straight on, a core may read ahead of light work by itself, if each vector is in one line.
  Index ahead(bool straight, Index min_bytes = min_prefetch_bytes) const {
    const bool aligned = lane_of(in.template get<0>().data) == 0;
    if (straight && aligned && is_light && !memory_access().prefetches_straight) return 0;
    return values_ahead<typename In::Widest>(grid.shape, tensors_summed<In, Formula>, 0, min_bytes);
  }

  /// The center of each channel, `stride` apart: the mean, where it is given; else that of the values so far, so that
  /// a constant stays exact; in the first block that of samples.
  void find_centers(const Block& block, Compute* center, Index stride) const {
    const Index begin = block.channel_begin, channels = block.channels();
    if constexpr (!Formula::finds_mean) {
      for (Index c = 0; c < channels; ++c) center[c * stride] = static_cast<Compute>(mean[begin + c]);
    } else if (block.before > Statistic(0)) {
      for (Index c = 0; c < channels; ++c) center[c * stride] = static_cast<Compute>(first[begin + c]);
    } else if constexpr (has_weights<Formula>) {
      for (Index c = 0; c < channels; ++c) {
        center[c * stride] = find_weighted_center<Formula::weights>(runs_of(begin + c, block.begin, block.end));
      }
    } else {
      const Lines<In> runs = runs_of(begin, block.begin, block.end);
      const auto* const first_run = runs.in.template get<0>();
      const Index channel_stride = in.template get<0>().channel_stride;
      const CenterPlaces<In> places(runs);
      for (Index c = 0; c < channels; ++c) center[c * stride] = places.center(first_run + c * channel_stride);
    }
  }

  /// Joins the columns of a block and merges them into the channels.
  void take_in(const Block& block, Index columns_per_channel, Index fold) const {
    const JoinColumns<Compute, Statistic> join{scratch.center, scratch.columns, block.channels(), columns_per_channel,
                                               fold,           scratch.block};
    detail::dispatch(join, columns_per_channel == 1 ? block.channels() : columns_per_channel);
    if constexpr (widens) correct(block);
    const Index c = block.channel_begin, channels = block.channels();
    const ChannelSums<Statistic>& sums = scratch.block;
    finish_channels<Formula>(sums, Formula::finds_mean ? sums.center : mean + c, channels, block.count);
    merge_channels<Formula>(first + c, second + c, sums.sum, sums.product_sum, channels, block.before, block.count);
  }

  /// Sums again what left the range of Compute, or lost too many digits about a center far from the mean.
  void correct(const Block& block) const {
    const bool first_block = !(block.before > Statistic(0));
    const ChannelSums<Statistic>& sums = scratch.block;
    if (all_reliable<Formula>(sums, block.channels(), block.count, first_block)) return;
    for (Index c = 0; c < block.channels(); ++c) {
      Statistic reliable;
      Formula::check(sums.sum[c], sums.product_sum[c], block.count, first_block, reliable);
      if (reliable != Statistic(0)) continue;
      const Index channel = block.channel_begin + c;
      SumAgain<In, Formula>{runs_of(channel, block.begin, block.end),
                            channel,
                            mean,
                            further,
                            sums.center[c],
                            sums.sum[c],
                            sums.product_sum[c]}
          .run();
    }
  }
};

}  // namespace batchnorm::detail
