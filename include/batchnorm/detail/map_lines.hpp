#pragma once

#include <algorithm>
#include <utility>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/lines.hpp"
#include "batchnorm/detail/outputs.hpp"

// A formula applied to the values of a line. The output may be one of the inputs, so nothing is read again after it may
// have been written.

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

}  // namespace batchnorm::detail
