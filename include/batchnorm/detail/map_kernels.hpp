#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lines.hpp"
#include "batchnorm/detail/outputs.hpp"

// A formula applied to each value. The output may be one of the inputs, so nothing is read again after it may have been
// written.

namespace batchnorm::detail {

/// Values of a line, given where their coefficients come from.
template <class L, class Formula, class In, class Coefficients, class Result>
BATCHNORM_INLINE void map_at(const Pointers<In>& in, Index i, const Coefficients& coefficients, Result& result) {
  typename L::V v[Formula::inputs], c[Formula::coefficients];
  for_each_index<Formula::inputs>([&](auto k) BATCHNORM_INLINE_LAMBDA {
    if constexpr (Coefficients::by_columns && k == Formula::weights) {
      in.template fill<L, k>(v[k], 0);
    } else {
      in.template load<L, k>(v[k], i);
    }
  });
  for_each_index<static_cast<std::size_t>(Formula::coefficients)>(
      [&](auto k) BATCHNORM_INLINE_LAMBDA { coefficients.template get<k>(c[k]); });
  Formula::apply(v, c, result);
}

/// Two vectors that share values: both are read before either is written.
template <class L, class Formula, class In, class To, class Coefficients>
BATCHNORM_INLINE void map_two(const Pointers<In>& in, To& to, Index first, Index second, Coefficients& coefficients) {
  typename To::template Result<typename L::V> first_result, second_result;
  coefficients.start(first);
  map_at<L, Formula>(in, first, coefficients, first_result);
  coefficients.start(second);
  map_at<L, Formula>(in, second, coefficients, second_result);
  to.template store_first<L>(first, first_result, second - first);
  to.template store<L>(second, second_result);
}

/// at(i) for every `step`-th value from `begin` to `end`, with the coefficients of each.
template <Index step, class Coefficients, class At>
BATCHNORM_INLINE void for_steps(Index begin, Index end, Coefficients& coefficients, const At& at) {
  for (Index i = begin; i < end; coefficients.start_again()) {
    const Index until = std::min(coefficients.end(i, step), end);
    for (; i < until; i += step) at(i);
  }
}

/// The values of a line from `begin` to `end`, which fill whole vectors, without asking for any in advance: a pack at a
/// time, for a loop over one vector is so short that its speed depends on where in memory its instructions lie.
template <class L, class Formula, class In, class To, class Coefficients>
BATCHNORM_INLINE void map_plainly(const Lines<In>& line, To& to, Index begin, Index end, const Coefficients& of_line) {
  Pointers<In> in = line.in;
  Coefficients coefficients = of_line;  // a copy stays in registers
  in.hold_pointers();
  to.hold_pointers();
  coefficients.hold_pointers();
  coefficients.start(begin);
  const auto map_vector = [&](Index i) BATCHNORM_INLINE_LAMBDA {
    typename To::template Result<typename L::V> result;
    map_at<L, Formula>(in, i, coefficients, result);
    to.template store<L>(i, result);
    coefficients.next();
  };
  constexpr Index pack = L::per_pack * L::count;
  const Index last = end - (end - begin) % pack;
  for_steps<pack>(begin, last, coefficients, [&](Index i) BATCHNORM_INLINE_LAMBDA {
    for_each_index<L::per_pack>([&](auto k) BATCHNORM_INLINE_LAMBDA { map_vector(i + Index(k) * L::count); });
  });
  for_steps<L::count>(last, end, coefficients, map_vector);
}

/// The same of whole packs, asking for what lies ahead in the line, then for what does in the next one. Each output
/// gets its pack at once, so that what goes past the caches leaves the core by whole cache lines.
template <class L, class Formula, class In, class To, class Coefficients>
BATCHNORM_INLINE void map_ahead(const Lines<In>& line, To& to, Index begin, Index end, const Coefficients& of_line) {
  constexpr Index pack = L::per_pack * L::count;
  const Index into_next = begin + round_up(std::clamp<Index>(line.length - line.ahead - begin, 0, end - begin), pack);
  Coefficients coefficients = of_line;  // a copy stays in registers
  coefficients.start(begin);
  for (Index from = begin; from < end;) {
    const Index until = from < into_next ? into_next : end;
    ForEach<In> ahead;
#pragma GCC unroll 8
    for (std::size_t k = 0; k < Formula::inputs; ++k) {
      ahead[k] = LookAhead(line.ahead, line.length, line.stride[k]).from(from);
    }
    to.look_ahead(line.ahead, line.length, from);
    for_steps<pack>(from, until, coefficients, [&](Index i) BATCHNORM_INLINE_LAMBDA {
      for_each_index<Formula::inputs>([&](auto k) BATCHNORM_INLINE_LAMBDA {
        if constexpr (!Coefficients::by_columns || k != Formula::weights) line.in.template prefetch<L, k>(i, ahead[k]);
      });
      typename To::template Result<typename L::V> results[L::per_pack];
      for_each_index<L::per_pack>([&](auto k) BATCHNORM_INLINE_LAMBDA {
        map_at<L, Formula>(line.in, i + Index(k) * L::count, coefficients, results[k]);
        coefficients.next();
      });
      to.template store_ahead<L>(i, results);
    });
    from = until;
  }
}

/// The same of few vectors, asking for none.
template <class L, class Formula, class In, class To, class Coefficients>
BATCHNORM_INLINE void map_few(const Pointers<In>& in, To& to, Index begin, Index end, Coefficients& coefficients) {
  for (Index i = begin; i < end; i += L::count) {
    typename To::template Result<typename L::V> result;
    coefficients.start(i);
    map_at<L, Formula>(in, i, coefficients, result);
    to.template store<L>(i, result);
  }
}

/// The same of a line's first values, as many vectors at most as `k` has, without a loop, whose speed would depend on
/// where in memory its instructions lie.
template <class L, class Formula, class In, class To, class Coefficients, std::size_t... k>
BATCHNORM_INLINE void map_unrolled(const Pointers<In>& in, To& to, Index end, Coefficients& coefficients,
                                   std::index_sequence<k...>) {
  const auto map_before_end = [&](Index i) BATCHNORM_INLINE_LAMBDA {
    if (i >= end) return false;
    map_few<L, Formula>(in, to, i, i + L::count, coefficients);
    return true;
  };
  static_cast<void>((map_before_end(Index(k) * L::count) && ...));
}

/// The same, asking for memory in advance. Only whole cache lines go past the caches.
template <class L, class Formula, class In, class To, class Coefficients>
BATCHNORM_INLINE void map_vectors_ahead(const Lines<In>& line, To& to, Index begin, Index end,
                                        Coefficients& coefficients) {
  Index first = begin, last = end - (end - begin) % (L::per_pack * L::count);
  if (to.streams()) {
    first = std::min(begin + to.template before_line<L>(begin), end);
    last = std::max(end - to.template behind_line<L>(end), first);
    to.template begin_at<L>(first);
    map_few<L, Formula>(line.in, to, begin, first, coefficients);
  }
  map_ahead<L, Formula>(line, to, first, last, coefficients);
  map_few<L, Formula>(line.in, to, last, end, coefficients);
}

/// A whole line, at least one vector long. If its vectors stream, or if it is long and their coefficients are aligned
/// then, its first values are written apart, so that the vectors behind them are aligned in the output, and in the
/// inputs that lie like it.
template <class L, class Formula, class In, class To, class Coefficients>
BATCHNORM_INLINE void map_line(const Lines<In>& line, To to, Coefficients& coefficients) {
  constexpr Index long_enough = 8 * L::count;
  const Index length = line.length;
  Index begin = 0;
  if (to.streams() || length >= long_enough) {
    const Index before = to.template before_aligned<L>();
    if (before != 0 && (to.streams() || coefficients.aligned_at(before))) {
      map_two<L, Formula>(line.in, to, 0, before, coefficients);
      begin = before + L::count;
    }
  }
  const Index rest = (length - begin) % L::count, whole = rest == 0 ? length : length - rest - L::count;
  if (line.ahead == 0) {
    map_plainly<L, Formula>(line, to, begin, whole, coefficients);
  } else {
    map_vectors_ahead<L, Formula>(line, to, begin, whole, coefficients);
  }
  if (rest != 0) map_two<L, Formula>(line.in, to, whole, length - L::count, coefficients);
  to.end();
}

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
