#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/grid.hpp"
#include "batchnorm/detail/map_kernels.hpp"
#include "batchnorm/detail/targets.hpp"

// Applies a formula to each value of a part of a tensor, with coefficients for each channel.

namespace batchnorm::detail {

template <class T, class Compute, class Formula, class Out>
class PartMap {
 public:
  using Coefficients = std::array<Compute*, Formula::coefficients>;
  Grid grid;
  Part part;
  std::array<View<const T>, Formula::inputs> in;
  View<Out> out;
  Coefficients per_channel;  // of every channel of the tensor
  Coefficients per_column;   // scratch, where channels have several columns: those of the part and one pack more

  void run() const {
    if (grid.by_columns) {
      map_rows();
    } else {
      map_runs();
    }
  }

 private:
  void map_runs() const {
    Coefficients coefficients = per_channel;
    for (Compute*& array : coefficients) array += part.channel_begin;
    for (Index p = part.begin; p < part.end;) {
      // Whole runs together, or what the part has of one run.
      const Index run = grid.run_of(p), offset = grid.piece_begin(p);
      const Index end = grid.pieces == 1 ? part.end : std::min(part.end, (run + 1) * grid.pieces);
      const Index length = grid.pieces == 1 ? grid.shape.inner : grid.values_before(end) - grid.values_before(p);
      ChannelRuns<T, Formula::inputs> channels{
          lines_at(run, part.channel_begin, offset, grid.pieces == 1 ? end - p : 1, length), {}, part.channels()};
      for (std::size_t k = 0; k < in.size(); ++k) channels.stride[k] = in[k].channel_stride;
      OutputLines<Out> to = output_at(run, part.channel_begin, offset);
      if (channels.runs.lines == 1) {
        channels.runs.stride = channels.stride;  // behind a channel's only line comes the next channel
        to.stride = out.channel_stride;
      }
      dispatch(MapRuns<T, Compute, Formula, Out>{channels, to, out.channel_stride, coefficients}, length);
      p = end;
    }
  }

  void map_rows() const {
    const Index width = part.channels() * grid.shape.inner, rows = part.end - part.begin;
    const bool dense = is_dense();
    const Index length = dense ? rows * width : width;
    const auto lines = lines_at(part.begin, part.channel_begin, 0, dense ? 1 : rows, length);
    dispatch(MapRows<T, Compute, Formula, Out>{lines, output_at(part.begin, part.channel_begin, 0),
                                               column_coefficients(), width},
             length);
  }

  Lines<T, Formula::inputs> lines_at(Index outer, Index channel, Index offset, Index lines, Index length) const {
    Lines<T, Formula::inputs> result{{}, {}, lines, length, values_ahead<T>(grid.shape)};
    for (std::size_t k = 0; k < in.size(); ++k) {
      result.in[k] = in[k].data + outer * in[k].outer_stride + channel * in[k].channel_stride + offset;
      result.stride[k] = in[k].outer_stride;
    }
    return result;
  }
  OutputLines<Out> output_at(Index outer, Index channel, Index offset) const {
    return {out.data + outer * out.outer_stride + channel * out.channel_stride + offset, out.outer_stride};
  }

  /// Whether the rows of the part follow one another without gaps.
  bool is_dense() const {
    bool dense = !has_weights<Formula> && part.channels() == grid.shape.channels && out.dense_rows();
    for (const auto& view : in) dense = dense && view.dense_rows();
    return dense;
  }

  /// Coefficients column by column. Behind the last one the row begins again, if it is the whole row.
  Coefficients column_coefficients() const {
    Coefficients columns = per_column;
    const Index inner = grid.shape.inner;
    for (std::size_t k = 0; k < columns.size(); ++k) {
      Compute* const channels = per_channel[k] + part.channel_begin;
      if (inner == 1) {
        columns[k] = channels;
      } else {
        fill_channels(columns[k], inner, channels, part.channels());
        repeat_columns(columns[k], part.channels() * inner);
      }
    }
    return columns;
  }
};

}  // namespace batchnorm::detail
