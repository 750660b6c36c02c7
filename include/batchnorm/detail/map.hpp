#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/grid.hpp"
#include "batchnorm/detail/map_kernels.hpp"
#include "batchnorm/detail/map_strips.hpp"
#include "batchnorm/detail/targets.hpp"

// Applies a formula to each value of a part of a tensor, with coefficients for each channel.

namespace batchnorm::detail {

template <class In, class Formula, class Out>
class PartMap {
 public:
  using Compute = typename In::Compute;
  using Coefficients = std::array<Compute*, Formula::coefficients>;
  const Grid& grid;
  Part part;
  const In& in;
  const Out& out;
  Streams<Out> streams;
  bool read_before;                 // the part, by a reduction: it is still in a cache
  Index repeats;                    // of a row's coefficients in their arrays; 0: its rows have gaps
  const Coefficients& per_channel;  // of every channel of the tensor
  Coefficients per_column;          // scratch, where channels have several columns: those of the part, repeated

  void run() const {
    if (grid.by_columns) {
      map_rows();
    } else {
      map_runs();
    }
    if (streams.any()) end_streaming();
  }

 private:
  void map_runs() const {
    Coefficients coefficients = per_channel;
    for (Compute*& array : coefficients) array += part.channel_begin;
    for (Index p = part.begin; p < part.end;) {
      // Whole runs together, or what the part has of one run.
      const Index run = grid.run_of(p), offset = grid.piece_begin(p);
      const Index end = grid.pieces == 1 ? part.end : std::min(part.end, (run + 1) * grid.pieces);
      const Index length = grid.length_of(p, end);
      const Pointers<In> first(in, run, part.channel_begin, offset);
      OutputLines<Out> to(out, run, part.channel_begin, offset, length, streams);
      const Lines<In> runs = lines_at(in, first, grid.lines_of(p, end), length, ahead_in_runs(to.streams()));
      const ChannelRuns<In> channels(in, runs, part.channels());
      if (channels.runs.lines == 1) to.step_by_channels();
      detail::dispatch(MapRuns<In, Formula, Out>{channels, to, coefficients}, length);
      p = end;
    }
  }

  void map_rows() const {
    const Index columns = part.channels() * grid.shape.inner, rows = part.end - part.begin;
    const bool dense = repeats != 0;
    const Index length = dense ? rows * columns : columns, width = dense ? repeats * columns : columns;
    const Pointers<In> first(in, part.begin, part.channel_begin, 0);
    const OutputLines<Out> to(out, part.begin, part.channel_begin, 0, length, streams);
    Lines<In> lines =
        lines_at(in, first, dense ? 1 : rows, length, dense ? ahead_in_dense_rows(to.streams()) : ahead(to.streams()));
    if (dense) lines.stride.fill(length);  // behind its end memory goes on
    const Coefficients coefficients = column_coefficients();
    if constexpr (MapStrips<In, Formula, Out>::possible) {
      const MapStrips<In, Formula, Out> strips{lines, to, coefficients, columns};
      if (strips.fits()) return run_avx2(strips);  // unqualified: only x86 has it
    }
    detail::dispatch(MapRows<In, Formula, Out>{lines, to, coefficients, width}, length);
  }

  /// What is walked straight on, a core may read ahead of by itself: a part that holds whole channels is not.
  Index ahead_in_runs(bool past_caches) const {
    if (read_before || (!past_caches && memory_access().prefetches_straight)) return ahead(past_caches);
    return past_caches ? at_once : 0;
  }

  /// The same for rows without gaps: those of 16 bits take a core so long that it reads ahead of them in time.
  Index ahead_in_dense_rows(bool past_caches) const {
    constexpr bool narrow = sizeof(typename In::Widest) < sizeof(Compute);
    if (past_caches) return at_once;
    return narrow && !memory_access().prefetches_straight ? 0 : ahead(false);
  }

  /// Beside stores past the caches reading ahead is best left to the core. The loop that has these always asks: for
  /// the next value, which is read at once.
  static constexpr Index at_once = 1;

  Index ahead(bool past_caches) const {
    return std::max(values_ahead<typename In::Widest>(grid.shape, In::tensors, tensors_of<Out>),
                    past_caches ? at_once : 0);
  }

  /// Coefficients column by column.
  Coefficients column_coefficients() const {
    Coefficients columns = per_column;
    const Index inner = grid.shape.inner;
    for (std::size_t k = 0; k < columns.size(); ++k) {
      Compute* const channels = per_channel[k] + part.channel_begin;
      if (inner == 1) {
        columns[k] = channels;
      } else {
        fill_channels(columns[k], inner, channels, part.channels());
        if (repeats != 0) repeat_columns(columns[k], part.channels() * inner, repeats);
      }
    }
    return columns;
  }
};

}  // namespace batchnorm::detail
