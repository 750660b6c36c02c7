#pragma once

#include <algorithm>
#include <numeric>

#include "batchnorm/detail/lanes.hpp"
#include "batchnorm/detail/targets.hpp"
#include "batchnorm/shape.hpp"

// How a tensor is walked and cut. Everything here follows from the shape and the machine's caches, never from the
// number of threads or the instruction set, so that the same blocks and parts are always summed and merged in the same
// order.

namespace batchnorm::detail {

/// Rows, and values of runs, whose float sums are merged into double at a time: so many that what a block costs beside
/// its sums hardly counts.
inline constexpr Index block_rows = 2048, block_length = 32768;
/// Parts are cut between rows, or between pieces of runs.
inline constexpr Index block_pieces = 2, piece_length = block_length / block_pieces;
/// Columns that one part works on at most: its accumulators stay in L1.
inline constexpr Index max_columns = 1024;

/// Vectors of a row that are summed side by side, at most.
inline constexpr int max_strip = 4;

/// Runs shorter than this are read as columns by sums, when there are as many rows as pay for coefficients column by
/// column.
inline constexpr Index min_run = 256;
inline constexpr Index min_column_rows = 16;
/// From here on a map may walk them as runs all the same.
inline constexpr Index min_map_run = 128;

/// Two ways to walk: by columns, where a row holds all channels (or short runs of them) side by side, and by runs,
/// where the values of one channel are contiguous. Progress is counted in positions: rows, or pieces of runs.
struct Grid {
  Shape shape;
  Index value_bytes;
  bool by_columns;
  Index positions;
  Index pieces;    // of a run; 0 of an empty one
  Index fold = 1;  // rows of few columns that are read as one row

  // Most runs are one piece: they are spared the divisions, which cost as much as summing a short run.
  Index run_of(Index position) const { return pieces <= 1 ? position : position / pieces; }
  /// Where a piece begins inside its run.
  Index piece_begin(Index position) const { return pieces <= 1 ? 0 : position % pieces * piece_length; }

  /// Values per channel in the positions before this one.
  Index values_before(Index position) const { return run_of(position) * shape.inner + piece_begin(position); }
  /// Positions of one channel, either whole runs or some pieces of one: how many lines they are, and of what length.
  Index lines_of(Index begin, Index end) const { return pieces == 1 ? end - begin : 1; }
  Index length_of(Index begin, Index end) const {
    return pieces == 1 ? shape.inner : values_before(end) - values_before(begin);
  }
  Index bytes() const { return shape.size() * value_bytes; }
};

/// How far ahead of what they read kernels ask for memory, for each input: nothing in tensors of less than `min_bytes`.
template <class T>
Index values_ahead(const Shape& shape, Index inputs, Index outputs, Index min_bytes = min_prefetch_bytes) {
  const Index compute_bytes = shape.size() * static_cast<Index>(sizeof(ComputeOf<T>));
  if (compute_bytes < min_bytes) return 0;
  return memory_access().prefetch_bytes(compute_bytes, inputs, outputs) / static_cast<Index>(sizeof(T));
}

/// Shorter lines than this do not go past the caches: their ends would be written twice. Kernels rely on three vectors.
inline constexpr Index min_streamed_line_bytes = 1024;
static_assert(min_streamed_line_bytes >= 3 * pack_bytes);

struct Part {
  Index begin, end;  // positions
  Index channel_begin, channel_end;
  Index channels() const { return channel_end - channel_begin; }
};

/// How many rows are read as one row: of many rows as many as fill the vectors that are summed side by side, else,
/// where their width is no multiple of a vector, as many as fill whole ones. Wide rows only if they are many.
inline Index rows_per_row(const Shape& shape, Index lanes) {
  constexpr Index many = 32;
  const Index width = shape.channels * shape.inner, wide = max_strip * lanes;
  if (width == 0 || shape.outer == 1 || (width >= wide && width % lanes == 0)) return 1;
  const Index fill_wide = wide / std::gcd(wide, width), fill_one = lanes / std::gcd(lanes, width);
  if (fill_wide * width <= max_columns && shape.outer >= many * fill_wide) return fill_wide;
  if (width < wide) return shape.outer >= fill_one ? fill_one : 1;
  return fill_one * width <= max_columns && shape.outer >= many * fill_one ? fill_one : 1;
}

/// A weighted row has one weight: rows are then neither folded nor made of runs.
template <class T>
Grid make_grid(const Shape& shape, bool dense_rows, bool dense_channels, bool weighted) {
  const Index value_bytes = static_cast<Index>(sizeof(T));
  const Index lanes = pack_bytes / static_cast<Index>(std::min<std::size_t>(sizeof(ComputeOf<T>), 8));
  const bool short_runs =
      weighted ? shape.inner == 1 : shape.inner < lanes || (shape.inner < min_run && shape.outer >= min_column_rows);
  const Index pieces = ceil_div(shape.inner, piece_length);
  Grid grid{shape, value_bytes, dense_channels && short_runs, shape.outer * pieces, pieces};
  if (!weighted && grid.by_columns && dense_rows) grid.fold = rows_per_row(shape, lanes);
  return grid;
}

/// The parts of a tensor: position_parts times channel_parts of them.
struct Partition {
  Grid grid;
  Index position_parts, position_step;
  Index channel_parts, channel_step;

  Index parts() const { return position_parts * channel_parts; }
  /// Each part holds all values of its channels, so that it can be normalized while it is in the cache.
  bool whole_channels() const { return position_parts == 1; }
  /// Which position part a part belongs to. A tiny call is spared the division.
  Index position_part(Index k) const { return whole_channels() ? 0 : k / channel_parts; }

  Part operator[](Index k) const {
    const Index begin = position_part(k) * position_step;
    const Index channel_begin = (k - position_part(k) * channel_parts) * channel_step;
    return {begin, std::min(begin + position_step, grid.positions), channel_begin,
            std::min(channel_begin + channel_step, grid.shape.channels)};
  }
};

inline constexpr Index part_bytes = Index(128) << 10;
inline constexpr Index streamed_part_bytes = Index(512) << 10;      // where each part waits for its last stores
inline constexpr Index summed_part_bytes = Index(1) << 20;          // where each part finishes and merges its channels
inline constexpr Index undivided_columns_bytes = Index(256) << 10;  // less is not worth a second thread
inline constexpr Index max_position_parts = 64;
inline constexpr Index min_parallel_bytes = Index(64) << 10;  // less is done before other threads wake up
inline constexpr Index shared_parts = 4;  // about as many, or a multiple, where threads share a tensor

/// How many steps of so many bytes lead from the beginning of a cache line to that of another.
inline Index steps_to_line(Index step_bytes) { return pack_bytes / std::gcd(Index(pack_bytes), step_bytes); }

/// About `step` channels, at most a quarter and `most` more, so that their columns fill whole cache lines; `step` where
/// fewer of them do not.
inline Index whole_lines(const Grid& grid, Index step, Index most) {
  const Index line = steps_to_line(grid.shape.inner * grid.value_bytes);
  const Index more = round_up(step, line);
  if (more <= std::min(step + step / 4, most)) return more;
  return step < line ? step : more - line;
}

/// Channels of a part that holds all their values and stays in a cache, so that it can be read again there; all
/// channels where there is no such part. Narrow columns are faster to read in whole rows than by jumps from row to row.
/// (Rows that are folded have few channels: they stay whole.)
inline Index resident_step(const Grid& grid, Index tensors, Index max_step) {
  const Index channels = std::max<Index>(grid.shape.channels, 1), run_bytes = grid.shape.inner * grid.value_bytes;
  const Index channel_bytes = std::max<Index>(grid.shape.outer * run_bytes, 1);
  const MemoryAccess& access = memory_access();
  const Index resident = grid.by_columns ? access.resident_bytes : access.resident_run_bytes;
  if ((grid.by_columns && run_bytes < pack_bytes) || grid.fold > 1 || channel_bytes * tensors > resident) {
    return channels;
  }
  if (grid.by_columns) return whole_lines(grid, std::clamp<Index>(part_bytes / channel_bytes, 1, max_step), max_step);
  const Index fit = std::clamp<Index>(access.resident_bytes / (channel_bytes * tensors), 1, max_step);
  return ceil_div(channels, round_up(ceil_div(channels, fit), shared_parts));
}

/// What is small is one part, or by runs a few for threads to share. Else it is cut along the channels, if parts then
/// stay in a cache, or along the positions, in parts of about `bytes`.
inline Partition make_partition(const Grid& grid, Index tensors, Index bytes = summed_part_bytes) {
  const Shape& shape = grid.shape;
  const Index positions = std::max<Index>(grid.positions, 1), channels = std::max<Index>(shape.channels, 1);
  const Index channel_bytes = std::max<Index>(shape.count() * grid.value_bytes, 1);
  const Index fitting = grid.by_columns ? max_columns / std::max<Index>(shape.inner, 1) : channels;
  const Index max_step = std::clamp<Index>(fitting, 1, channels);
  const Index undivided = grid.by_columns ? undivided_columns_bytes : memory_access().resident_bytes;
  if (channels * channel_bytes * tensors <= undivided && channels <= max_step) {
    const bool shared = !grid.by_columns && channels * channel_bytes >= min_parallel_bytes;
    const Index step = shared ? ceil_div(channels, shared_parts) : channels;
    return {grid, 1, positions, ceil_div(channels, step), step};
  }
  if (const Index step = resident_step(grid, tensors, max_step); step < channels) {
    return {grid, 1, positions, ceil_div(channels, step), step};
  }
  const Index step = grid.by_columns ? max_step : 1;
  const Index wanted =
      std::clamp<Index>(round_up(ceil_div(step * channel_bytes * tensors, bytes), shared_parts), 1, max_position_parts);
  // Few rows do not pay for columns to finish.
  constexpr Index few_rows = 128, enough_rows = 512;
  const Index rows = std::clamp(ceil_div(positions, shared_parts * grid.fold), few_rows, enough_rows);
  const Index min_step = grid.by_columns ? std::min(rows * grid.fold, positions) : 1;
  const Index position_step = round_up(std::max(ceil_div(positions, wanted), min_step), grid.fold);
  return {grid, ceil_div(positions, position_step), position_step, ceil_div(channels, step), step};
}

/// For a reduction by runs that no map follows part by part: its parts need not stay in L2, but are to read longer
/// stretches of memory, the runs of more channels (at most as many as `together`, which it reads one behind the other).
inline Partition with_long_stretches(Partition partition, Index together) {
  const Grid& grid = partition.grid;
  if (grid.by_columns || !partition.whole_channels()) return partition;
  const Index channels = grid.shape.channels, run_bytes = std::max<Index>(grid.shape.inner * grid.value_bytes, 1);
  const Index fit = std::clamp<Index>(ceil_div(part_bytes, run_bytes), 1, together);
  const Index step = ceil_div(channels, round_up(ceil_div(channels, fit), shared_parts));
  if (step > partition.channel_step) {
    partition.channel_step = step;
    partition.channel_parts = ceil_div(channels, step);
  }
  return partition;
}

/// Whether a map of so many bytes of inputs and outputs may go through memory in order, run by run, though sums read
/// columns: where cores read ahead of that by themselves. A run fills a cache line; two where an L2 holds all, in which
/// coefficients for each column cost less.
inline bool maps_straight(const Grid& grid, Index bytes) {
  const MemoryAccess& access = memory_access();
  const bool near = bytes <= 2 * access.resident_bytes;  // which is half of an L2
  const Index run_bytes = grid.shape.inner * std::min<Index>(grid.value_bytes, 8);
  return run_bytes >= (near ? 2 : 1) * pack_bytes && !access.prefetches_straight;
}

/// For a map that walks as runs what sums read as columns, if the runs are long enough.
inline void walk_long_runs(Grid& grid) {
  if (grid.shape.inner >= min_map_run) grid.by_columns = false;
}

/// Columns whose coefficients stay in L1, the fewer the more inputs a map has: all, or nearly equal parts of wider
/// rows. Those are shorter than the widest whole row, for between its stretches memory is not read straight on.
inline Index coefficient_columns(const Grid& grid, Index tensors) {
  constexpr Index whole_bytes = Index(8) << 10, stretch_bytes = Index(4) << 10, least_bytes = 4;
  const Index channels = std::max<Index>(grid.shape.channels, 1), bytes = std::max(grid.value_bytes, least_bytes);
  if (channels * bytes * tensors <= whole_bytes) return channels;
  const Index most = std::max<Index>(std::min(stretch_bytes, whole_bytes / tensors) / bytes, 1);
  return std::min(round_up(ceil_div(channels, ceil_div(channels, most)), max_lanes), channels);
}

/// How often the coefficients of a row, of so many bytes for each column, stand in their arrays, where rows follow one
/// another without gaps: so often that they fill a vector, and where there are rows enough to pay for it, and room in
/// L1, whole vectors and many of them.
inline Index coefficient_repeats(const Shape& shape, Index lanes, Index column_bytes) {
  constexpr Index enough_rows = 16, many_columns = 256, max_bytes = Index(24) << 10;
  const Index width = std::max<Index>(shape.channels * shape.inner, 1), whole = lanes / std::gcd(lanes, width);
  const Index fill_one = ceil_div(lanes, width);
  if (whole * width * column_bytes > max_bytes) return fill_one;
  const Index wanted = whole * ceil_div(many_columns, whole * width);
  const Index paid_for = shape.outer / enough_rows / whole * whole;
  return std::clamp(paid_for, fill_one, wanted);
}

/// For a map that follows no sums in their parts: stretches of memory one after another, which is how memory is read
/// fastest. (By columns a part is cut along the channels all the same, where their coefficients would not stay in the
/// cache.)
inline Partition make_linear_partition(Grid grid, Index inputs, Index outputs = 1) {
  const Index total_bytes = (inputs + outputs) * grid.bytes();
  walk_long_runs(grid);
  // Short runs fill too few lines to go past the caches; several inputs are faster by runs even so.
  const bool streams = memory_access().streams(total_bytes);
  if (maps_straight(grid, total_bytes) && (inputs > 1 || !streams)) grid.by_columns = false;
  const Shape& shape = grid.shape;
  const Index run_bytes = std::max<Index>(shape.inner * grid.value_bytes, 1);
  const Index channels = std::max<Index>(shape.channels, 1), positions = std::max<Index>(grid.positions, 1);
  // Small ones are spared the divisions, which cost as much as the rest of a tiny call.
  if (channels * positions * run_bytes <= part_bytes) return {grid, 1, positions, 1, channels};
  if (grid.by_columns && shape.inner > 1) return make_partition(grid, inputs, 2 * part_bytes);
  const Index bytes = streams ? streamed_part_bytes : part_bytes;
  const Index channel_step =
      grid.by_columns ? coefficient_columns(grid, inputs) : std::clamp<Index>(bytes / run_bytes, 1, channels);
  const Index fit = std::max<Index>(bytes / (channel_step * run_bytes), 1), line = steps_to_line(channels * run_bytes);
  const Index runs = grid.by_columns && fit >= line ? fit - fit % line : fit;
  const Index pieces = run_bytes <= bytes ? grid.pieces : ceil_div(bytes, piece_length * grid.value_bytes);
  const Index position_step = std::min(runs * pieces, positions);
  return {grid, ceil_div(positions, position_step), position_step, ceil_div(channels, channel_step), channel_step};
}

}  // namespace batchnorm::detail
