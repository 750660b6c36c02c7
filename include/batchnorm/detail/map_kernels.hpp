#pragma once

#include <array>
#include <limits>
#include <utility>

#include "batchnorm/detail/map_lines.hpp"

// A formula applied to runs and to rows: where the coefficients of each value come from, and the kernels.

namespace batchnorm::detail {

/// By runs: the same coefficients for all values.
template <class L, int Count>
struct RunCoefficients {
  static constexpr bool by_columns = false;
  typename L::V values[static_cast<std::size_t>(Count)];

  BATCHNORM_INLINE RunCoefficients(const std::array<typename L::Compute*, static_cast<std::size_t>(Count)>& from,
                                   Index c) {
    for_each_index<static_cast<std::size_t>(Count)>([&](auto k)
                                                        BATCHNORM_INLINE_LAMBDA { L::fill(values[k], from[k][c]); });
  }
  BATCHNORM_INLINE bool aligned_at(Index) const { return true; }
  BATCHNORM_INLINE void hold_pointers() {}
  BATCHNORM_INLINE void start(Index) {}
  BATCHNORM_INLINE Index end(Index, Index) const { return std::numeric_limits<Index>::max(); }
  BATCHNORM_INLINE void next() {}
  BATCHNORM_INLINE void start_again() {}
  template <std::size_t k>
  BATCHNORM_INLINE void get(typename L::V& c) const {
    c = values[k];
  }
};

/// By columns: an array for each coefficient, which begins again after `width` values, a vector at least. Where rows
/// follow one another, the arrays have one pack more, with the first columns again.
template <class L, int Count>
struct ColumnCoefficients {
  static constexpr bool by_columns = true;
  std::array<typename L::Compute*, static_cast<std::size_t>(Count)> values;
  Index width;
  Index column = 0;

  /// Whether the vectors from value i on are; all arrays lie alike.
  BATCHNORM_INLINE bool aligned_at(Index i) const { return L::before_aligned(values[0] + remainder(i)) == 0; }
  BATCHNORM_INLINE void hold_pointers() {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Count; ++k) hold(values[k]);
  }
  BATCHNORM_INLINE void start(Index i) { column = remainder(i); }
  /// Where they begin again: the first step from value i on that is behind the arrays' end.
  BATCHNORM_INLINE Index end(Index i, Index step) const { return i + round_up(width - column, step); }
  BATCHNORM_INLINE void next() { column += L::count; }
  BATCHNORM_INLINE void start_again() {
    if (column >= width) column -= width;
  }
  template <std::size_t k>
  BATCHNORM_INLINE void get(typename L::V& c) const {
    L::load(c, values[k] + column);
  }

 private:
  /// A division costs as much as several vectors: not within two rows.
  BATCHNORM_INLINE Index remainder(Index i) const {
    if (i < width) return i;
    return i - width < width ? i - width : i % width;
  }
};

/// The runs of channels, in the order of memory. What goes past the caches is written channel by channel: there the
/// order of memory is slower. At the end of a run the channel's next one is asked for, in the row behind: into the next
/// channel's a core reads ahead by itself.
template <class In, class Formula, class Out>
struct MapRuns {
  using Compute = typename In::Compute;
  ChannelRuns<In> channels;
  OutputLines<Out> to;                                       // of the first channel
  std::array<Compute*, Formula::coefficients> coefficients;  // of each channel

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    const bool is_short = channels.runs.length < few_vectors * L::count;
    if (is_short && channels.runs.ahead == 0 && !to.streams()) {
      map_short_runs<L>();
    } else {
      map_long_runs<L>();
    }
  }

 private:
  static constexpr Index few_vectors = 16;

  /// What surrounds the vectors of a run would cost more than they do: none is aligned, and all that runs have in
  /// common is found before.
  template <class L>
  BATCHNORM_INLINE void map_short_runs() const {
    const MapRuns unchanged = *this;  // where it stays in registers: nothing that is stored could be part of it
    const Index lines = channels.runs.lines, count = channels.channels, length = channels.runs.length;
    const Index rest = length % L::count, whole = rest == 0 ? length : length - rest - L::count;
    for (Index line = 0; line < lines; ++line) {
      for (Index c = 0; c < count; ++c) {
        const Pointers<In> in = unchanged.channels.of(c).place(line, 0);
        OutputLines<Out> out = unchanged.to.channel(c, count).line(line);
        RunCoefficients<L, Formula::coefficients> of_channel(unchanged.coefficients, c);
        map_unrolled<L, Formula>(in, out, whole, of_channel, std::make_index_sequence<few_vectors - 1>());
        if (rest != 0) map_two<L, Formula>(in, out, whole, length - L::count, of_channel);
        out.end();
      }
    }
  }

  template <class L>
  BATCHNORM_INLINE void map_long_runs() const {
    const bool by_channels = to.streams();
    const Index lines = channels.runs.lines, inner = by_channels ? lines : channels.channels;
    const Index outer = by_channels ? channels.channels : lines;
    for (Index k = 0; k < outer; ++k) {
      for (Index j = 0; j < inner; ++j) {
        const Index line = by_channels ? j : k, c = by_channels ? k : j;
        RunCoefficients<L, Formula::coefficients> of_channel(coefficients, c);
        map_line<L, Formula>(channels.of(c).from(line), to.channel(c, channels.channels).line(line), of_channel);
      }
    }
  }
};

template <class In, class Formula, class Out>
struct MapRows {
  using Compute = typename In::Compute;
  Lines<In> rows;  // without weights, a line may be several rows of `width` columns without gaps
  OutputLines<Out> to;
  std::array<Compute*, Formula::coefficients> coefficients;
  Index width;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using L = Lanes<Compute, Compute, Bytes>;
    ColumnCoefficients<L, Formula::coefficients> columns{coefficients, width};
    for (Index line = 0; line < rows.lines; ++line) map_line<L, Formula>(rows.from(line), to.line(line), columns);
  }
};

}  // namespace batchnorm::detail
