#pragma once

#include <algorithm>
#include <array>

#include "batchnorm/detail/map_lines.hpp"
#include "batchnorm/detail/targets.hpp"

namespace batchnorm::detail {

/// Coefficients of one vector of columns, in registers.
template <class L, int Count>
struct HeldCoefficients {
  static constexpr bool by_columns = true;
  typename L::V values[static_cast<std::size_t>(Count)];

  BATCHNORM_INLINE void load(const std::array<typename L::Compute*, static_cast<std::size_t>(Count)>& from,
                             Index column) {
    for_each_index<static_cast<std::size_t>(Count)>(
        [&](auto k) BATCHNORM_INLINE_LAMBDA { L::load(values[k], from[k] + column); });
  }
  template <std::size_t k>
  BATCHNORM_INLINE void get(typename L::V& c) const {
    c = values[k];
  }
};

/// Rows without gaps, of few columns: some rows at a time strip by strip, so that the coefficients of a strip are read
/// once for all of them. Measured with AVX2, and left to it: strips are as wide as its registers allow.
template <class In, class Formula, class Out>
struct MapStrips {
  using Compute = typename In::Compute;
  static constexpr bool possible = has_vectors<Compute> && BATCHNORM_X86 && Formula::coefficients <= 6 &&
                                   !has_weights<Formula> && !OutputLines<Out>::in_order;
  Lines<In> rows;  // one line
  OutputLines<Out> to;
  std::array<Compute*, Formula::coefficients> coefficients;
  Index columns;  // of a row

  /// Whether the columns fill whole strips, and run_avx2 may be called. More columns are faster in the order of memory,
  /// and so are rows that are asked for in advance.
  bool fits() const {
    constexpr Index max_strips = In::count == 1 ? 8 : 4;
    return active_target() == Target::avx2 && columns % strip_columns == 0 && columns <= max_strips * strip_columns &&
           rows.lines == 1 && rows.ahead == 0 && !to.streams() && to.template before_aligned<Vector>() == 0;
  }

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    static_assert(Bytes == Vector::bytes);
    const Index step = rows_together * columns;
    for (Index begin = 0; begin < rows.length; begin += step) {
      const Index end = std::min(begin + step, rows.length);
      for (Index column = 0; column < columns; column += strip_columns) map_strip(begin + column, end, column);
    }
  }

 private:
  using Vector = Lanes<Compute, Compute, 32>;
  /// Vectors side by side whose coefficients leave registers for values.
  static constexpr int strip = Formula::coefficients <= 3 ? 4 : 2;
  static constexpr Index strip_columns = strip * Vector::count;
  static constexpr Index rows_together = 8;

  BATCHNORM_INLINE void map_strip(Index begin, Index end, Index column) const {
    Pointers<In> in = rows.in;
    OutputLines<Out> out = to;
    in.hold_pointers();
    out.hold_pointers();
    const Index stride = columns;
    HeldCoefficients<Vector, Formula::coefficients> held[strip];
    for_each_index<strip>(
        [&](auto s) BATCHNORM_INLINE_LAMBDA { held[s].load(coefficients, column + Index(s) * Vector::count); });
    for (Index row = begin; row < end; row += stride) {
      for_each_index<strip>([&](auto s) BATCHNORM_INLINE_LAMBDA {
        const Index i = row + Index(s) * Vector::count;
        typename OutputLines<Out>::template Result<typename Vector::V> result;
        map_at<Vector, Formula>(in, i, held[s], result);
        out.template store<Vector>(i, result);
      });
    }
  }
};

}  // namespace batchnorm::detail
