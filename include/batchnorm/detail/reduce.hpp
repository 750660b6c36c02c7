#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/grid.hpp"
#include "batchnorm/detail/sum_kernels.hpp"
#include "batchnorm/detail/targets.hpp"

// Sums a formula over a part of a tensor. The kernels sum blocks of rows or runs in Compute; here blocks that left the
// range of Compute are summed again, and all of them merge in Statistic.

namespace batchnorm::detail {

/// Memory for one part at a time, for as many columns as the part has and one pack more.
template <class Compute, class Statistic>
struct ReduceScratch {
  Compute* center;
  Sums<Compute*> sums;
  Statistic *mean, *first, *second, *block_first, *block_second;
};

/// `first` and `second` have one entry for each channel of the tensor; those of the part's channels are written.
template <class T, class Compute, class Statistic, class Formula>
class PartReduction {
 public:
  Grid grid;
  Part part;
  std::array<View<const T>, Formula::inputs> in;
  const Statistic* mean;  // GradientFormula: of every channel
  Statistic* first;
  Statistic* second;
  ReduceScratch<Compute, Statistic> scratch;

  void run() const {
    if (!grid.by_columns) {
      for (Index c = part.channel_begin; c < part.channel_end; ++c) reduce_channel(c);
      return;
    }
    const Index rows = part.end - part.begin, folded = rows / grid.fold * grid.fold;
    if (folded > 0) reduce_rows(0, folded, grid.fold);
    if (folded < rows) reduce_rows(folded, rows - folded, 1);
  }

 private:
  using Single = Lanes<T, Statistic, 0>;
  using Inputs = Lines<T, Formula::inputs>;
  static constexpr bool widens = !std::is_same_v<Compute, Statistic>;

  // ---- By runs: one channel at a time.

  void reduce_channel(Index c) const {
    const Index block = std::max<Index>(piece_length / std::max<Index>(grid.shape.inner, 1), 1);
    for (Index p = part.begin; p < part.end; p += block) {
      const Index end = std::min(p + block, part.end);
      const Inputs runs = runs_of(c, p, end);
      const Index before = grid.values_before(p) - grid.values_before(part.begin);
      Statistic block_first, block_second;
      sum_runs(c, runs, before, block_first, block_second);
      merge(before, runs.lines * runs.length, block_first, block_second, first[c], second[c]);
    }
  }

  /// Positions [begin, end) of a channel: whole runs, or a piece of one.
  Inputs runs_of(Index c, Index begin, Index end) const {
    Inputs runs{{}, {}, end - begin, grid.piece_size(begin)};
    for (std::size_t k = 0; k < in.size(); ++k) {
      runs.stride[k] = in[k].outer_stride;
      runs.in[k] = in[k].data + begin / grid.pieces_per_run() * in[k].outer_stride + c * in[k].channel_stride +
                   grid.piece_begin(begin);
    }
    return runs;
  }

  void sum_runs(Index c, const Inputs& runs, Index before, Statistic& block_first, Statistic& block_second) const {
    using Kernel = SumRuns<T, Compute, Formula>;
    Compute lanes[4][Kernel::lanes] = {};
    const Compute center = find_center(c, runs, before);
    dispatch(Kernel{runs, center, {lanes[0], lanes[1], lanes[2], lanes[3]}}, runs.length);
    const Statistic sum = sum_lanes(lanes[0], lanes[1]), product_sum = sum_lanes(lanes[2], lanes[3]);
    const Index count = runs.lines * runs.length;
    finish(center, mean_of(c), sum, product_sum, count, block_first, block_second);
    if constexpr (widens) {
      if (!Formula::is_reliable(static_cast<Compute>(sum), static_cast<Compute>(product_sum),
                                static_cast<Compute>(count))) {
        sum_wide(runs, mean_of(c), block_first, block_second);
      }
    }
  }

  /// A value near the mean, to be subtracted from all: the closer it is, the fewer digits the sums lose. First from
  /// samples all over the runs, for their beginning may be a border. Then from the values so far: a constant stays
  /// exact.
  Compute find_center(Index c, const Inputs& runs, Index before) const {
    if constexpr (!Formula::finds_mean) return static_cast<Compute>(mean[c]);
    if (before > 0) return static_cast<Compute>(first[c]);
    constexpr Index samples = 16, sampled_runs = 4;
    const Compute origin = static_cast<Compute>(*runs.in[0]);
    Compute sums[sampled_runs] = {Compute(0), Compute(0), Compute(0), Compute(0)};
    for (Index k = 0; k < samples; ++k) {
      const Index run = std::min(sample_place(k % sampled_runs, sampled_runs, runs.lines), runs.lines - 1);
      const Index place = sample_place(k, samples, runs.length);
      const T* const x = runs.in[0] + run * runs.stride[0] + std::min(place, runs.length - 1);
      sums[k % sampled_runs] += static_cast<Compute>(*x) - origin;
    }
    return origin + ((sums[0] + sums[1]) + (sums[2] + sums[3])) / Compute(samples);
  }

  Statistic mean_of(Index c) const { return Formula::finds_mean ? Statistic(0) : mean[c]; }

  /// By halves, so that the order is the same on every target.
  template <std::size_t Lanes>
  static Statistic sum_lanes(const Compute (&lanes)[Lanes], const Compute (&errors)[Lanes]) {
    Statistic sums[Lanes];
    for (std::size_t k = 0; k < Lanes; ++k) sums[k] = Statistic(lanes[k]) - Statistic(errors[k]);
    for (std::size_t half = Lanes / 2; half > 0; half /= 2) {
      for (std::size_t k = 0; k < half; ++k) sums[k] += sums[k + half];
    }
    return sums[0];
  }

  // ---- By columns: whole rows, `fold` of them read as one.

  /// Takes in `rows` positions behind the first `done` ones of the part.
  void reduce_rows(Index done, Index rows, Index fold) const {
    const Index columns = fold * part.channels() * grid.shape.inner;
    if constexpr (!Formula::finds_mean) expand_means(columns);
    for (Index row = 0; row < rows / fold; row += block_rows) {
      const Inputs block = rows_of(done, fold, row, std::min(block_rows, rows / fold - row), columns);
      center_columns(block, row);
      dispatch(SumRows<T, Compute, Formula>{block, scratch.center, scratch.sums}, columns);
      finish_columns(block);
      for (Index j = 0; j < columns; ++j) {
        merge(row, block.lines, scratch.block_first[j], scratch.block_second[j], scratch.first[j], scratch.second[j]);
      }
    }
    merge_into_channels(done, fold, rows / fold);
  }

  Inputs rows_of(Index done, Index fold, Index row, Index rows, Index columns) const {
    Inputs block{{}, {}, rows, columns};
    for (std::size_t k = 0; k < in.size(); ++k) {
      block.stride[k] = in[k].outer_stride * fold;
      block.in[k] = in[k].data + (part.begin + done) * in[k].outer_stride + row * block.stride[k] +
                    part.channel_begin * grid.shape.inner;
    }
    return block;
  }

  void center_columns(const Inputs& block, Index before) const {
    if constexpr (Formula::finds_mean) {
      if (before == 0) return dispatch(FindCenters<T, Compute>{block, scratch.center}, block.length);
      for (Index j = 0; j < block.length; ++j) scratch.center[j] = static_cast<Compute>(scratch.first[j]);
    }
  }

  void expand_means(Index columns) const {
    const Index inner = grid.shape.inner, width = part.channels() * inner;
    for (Index j = 0; j < columns; ++j) {
      scratch.mean[j] = j < width ? mean[part.channel_begin + j / inner] : scratch.mean[j - width];
      scratch.center[j] = static_cast<Compute>(scratch.mean[j]);
    }
  }

  void finish_columns(const Inputs& block) const {
    const Sums<Compute*>& sums = scratch.sums;
    for (Index j = 0; j < block.length; ++j) {
      const Statistic column_mean = Formula::finds_mean ? Statistic(0) : scratch.mean[j];
      const Statistic sum = Statistic(sums.sum[j]) - Statistic(sums.sum_error[j]);
      const Statistic product_sum = Statistic(sums.product_sum[j]) - Statistic(sums.product_error[j]);
      finish(scratch.center[j], column_mean, sum, product_sum, block.lines, scratch.block_first[j],
             scratch.block_second[j]);
      if constexpr (widens) {
        if (!Formula::is_reliable(sums.sum[j], sums.product_sum[j], static_cast<Compute>(block.lines))) {
          Inputs column = block;
          for (const T*& data : column.in) data += j;
          column.length = 1;
          sum_wide(column, column_mean, scratch.block_first[j], scratch.block_second[j]);
        }
      }
    }
  }

  /// Merges the columns of each channel, `rows` values each, into the channels, which have taken in `done` positions.
  void merge_into_channels(Index done, Index fold, Index rows) const {
    const Index inner = grid.shape.inner, channels = part.channels();
    for (Index k = 0; k < fold * inner; ++k) {
      const Index offset = k / inner * channels * inner + k % inner;
      for (Index c = 0; c < channels; ++c) {
        merge(done * inner + k * rows, rows, scratch.first[offset + c * inner], scratch.second[offset + c * inner],
              first[part.channel_begin + c], second[part.channel_begin + c]);
      }
    }
  }

  // ---- Both.

  static void finish(const Compute& center, const Statistic& mean, const Statistic& sum, const Statistic& product_sum,
                     Index count, Statistic& block_first, Statistic& block_second) {
    Formula::finish(Statistic(center), mean, sum, product_sum, Statistic(1) / Statistic(count), block_first,
                    block_second);
  }

  /// Takes `size` more values into those of a column or channel that has `before`.
  static void merge(Index before, Index size, const Statistic& block_first, const Statistic& block_second,
                    Statistic& to_first, Statistic& to_second) {
    if (before == 0) {
      to_first = block_first;
      to_second = block_second;
    } else {
      const Statistic share = Statistic(size) / Statistic(before + size);
      Formula::merge(to_first, to_second, block_first, block_second, share, Statistic(before) * share);
    }
  }

  /// The sums in Statistic, one value at a time, for a block that left the range of Compute.
  [[gnu::noinline, gnu::cold]] static void sum_wide(const Inputs& lines, const Statistic& mean, Statistic& block_first,
                                                    Statistic& block_second) {
    const Statistic center = Formula::finds_mean ? static_cast<Statistic>(*lines.in[0]) : mean;
    Statistic sum(0), product_sum(0);
    for (Index line = 0; line < lines.lines; ++line) {
      for (Index i = 0; i < lines.length; ++i) {
        Statistic v[Formula::inputs];
        for (std::size_t k = 0; k < lines.in.size(); ++k) {
          Single::load(v[k], lines.in[k] + line * lines.stride[k] + i);
        }
        Formula::accumulate(v, center, sum, product_sum);
      }
    }
    Formula::finish(center, mean, sum, product_sum, Statistic(1) / Statistic(lines.lines * lines.length), block_first,
                    block_second);
  }
};

}  // namespace batchnorm::detail
