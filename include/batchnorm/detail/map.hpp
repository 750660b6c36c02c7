#pragma once

#include <array>

#include "batchnorm/detail/formulas.hpp"
#include "batchnorm/detail/grid.hpp"

// Walks a part of a tensor and applies a formula to each value: reads each input once and writes the output once. The
// output may be one of the inputs, so nothing is read again after it may have been written.

namespace batchnorm::detail {

template <class T, class Compute_, class Formula_>
struct MapArguments {
  using Scalar = T;
  using Compute = Compute_;
  using Formula = Formula_;
  using Coefficients = std::array<Compute*, Formula::coefficients>;
  Grid grid;
  Part part;
  std::array<View<const T>, Formula::inputs> in;
  View<T> out;
  Coefficients per_channel;  // one entry for each channel of the tensor
  Coefficients per_column;   // scratch: room for max_columns values and one pack more

  bool dense_rows() const {
    bool dense = part.channels() == grid.shape.channels && out.dense_rows();
    for (const auto& view : in) dense = dense && view.dense_rows();
    return dense;
  }
};

/// Where a stretch of values lies in each tensor.
template <class Arguments>
struct Span {
  std::array<const typename Arguments::Scalar*, Arguments::Formula::inputs> in;
  typename Arguments::Scalar* out;
  Index length;

  Span(const Arguments& a, Index outer, Index channel, Index offset, Index size) : length(size) {
    for (std::size_t k = 0; k < in.size(); ++k) {
      in[k] = a.in[k].data + outer * a.in[k].outer_stride + channel * a.in[k].channel_stride + offset;
    }
    out = a.out.data + outer * a.out.outer_stride + channel * a.out.channel_stride + offset;
  }
};

template <class L, class Arguments>
BATCHNORM_INLINE void apply_at(const Span<Arguments>& span, Index i,
                               const typename L::V (&c)[Arguments::Formula::coefficients], typename L::V& result) {
  typename L::V v[Arguments::Formula::inputs];
  for (std::size_t k = 0; k < Arguments::Formula::inputs; ++k) L::load(v[k], span.in[k] + i);
  Arguments::Formula::apply(v, c, result);
}

// ---- By runs: the same coefficients for the whole span.

/// Where the last values fill no vector, it is computed first, shifted back, and stored last.
template <class L, class Arguments>
BATCHNORM_INLINE void map_run(const Span<Arguments>& span,
                              const typename L::V (&c)[Arguments::Formula::coefficients]) {
  const Index shifted = span.length - L::count;
  typename L::V result, last;
  apply_at<L>(span, shifted, c, last);
  for (Index i = 0; i < shifted; i += L::count) {
    apply_at<L>(span, i, c, result);
    L::store(span.out + i, result);
  }
  L::store(span.out + shifted, last);
}

template <class L, class Arguments>
BATCHNORM_INLINE void map_runs(const Arguments& a) {
  using Compute = typename Arguments::Compute;
  constexpr int coefficients = Arguments::Formula::coefficients;
  for (Index channel = a.part.channel_begin; channel < a.part.channel_end; ++channel) {
    Compute scalars[coefficients];
    typename L::V c[coefficients];
    for (std::size_t k = 0; k < coefficients; ++k) scalars[k] = a.per_channel[k][channel];
    for (std::size_t k = 0; k < coefficients; ++k) L::fill(c[k], scalars[k]);
    for (Index p = a.part.begin; p < a.part.end; ++p) {
      const Span span(a, p / a.grid.pieces_per_run(), channel, a.grid.piece_begin(p), a.grid.piece_size(p));
      if (span.length >= L::count) {
        map_run<L>(span, c);
      } else {
        map_run<Lanes<typename Arguments::Scalar, Compute, 0>>(span, scalars);
      }
    }
  }
}

// ---- By columns: the coefficients repeat after each row.

/// Coefficients column by column, and the first ones once more behind the last.
template <class Arguments>
void expand_coefficients(const Arguments& a) {
  const Index inner = a.grid.shape.inner, width = a.part.channels() * inner;
  for (std::size_t k = 0; k < a.per_column.size(); ++k) {
    const typename Arguments::Compute* from = a.per_channel[k] + a.part.channel_begin;
    typename Arguments::Compute* to = a.per_column[k];
    if (inner == 1) {
      std::copy_n(from, width, to);
    } else {
      for (Index c = 0; c < a.part.channels(); ++c) std::fill_n(to + c * inner, inner, from[c]);
    }
    for (Index j = 0; j < max_lanes; ++j) to[width + j] = to[j];
  }
}

template <class L, class Arguments>
BATCHNORM_INLINE void apply_columns(const Arguments& a, const Span<Arguments>& span, Index i, Index column,
                                    typename L::V& result) {
  typename L::V c[Arguments::Formula::coefficients];
  for (std::size_t k = 0; k < a.per_column.size(); ++k) L::Computed::load(c[k], a.per_column[k] + column);
  apply_at<L>(span, i, c, result);
}

/// One or more rows of `width` columns, as one stretch of vectors.
template <class L, class Arguments>
BATCHNORM_INLINE void map_rows(const Arguments& a, const Span<Arguments>& span, Index width) {
  const Index step = width > L::count ? L::count : L::count % width;
  const Index shifted = span.length - L::count;
  typename L::V result, last;
  apply_columns<L>(a, span, shifted, shifted % width, last);
  Index column = 0;
  for (Index i = 0; i < shifted; i += L::count) {
    apply_columns<L>(a, span, i, column, result);
    L::store(span.out + i, result);
    column += step;
    if (column >= width) column -= width;
  }
  L::store(span.out + shifted, last);
}

template <class Arguments>
[[gnu::noinline]] void map_rows_scalar(const Arguments& a, const Span<Arguments>& span, Index width) {
  map_rows<Lanes<typename Arguments::Scalar, typename Arguments::Compute, 0>>(a, span, width);
}

struct MapKernel {
  template <int Bytes, class Arguments>
  BATCHNORM_INLINE static void run(const Arguments& a) {
    using L = Lanes<typename Arguments::Scalar, typename Arguments::Compute, Bytes>;
    if (!a.grid.by_columns) return map_runs<L>(a);
    expand_coefficients(a);
    const Index width = a.part.channels() * a.grid.shape.inner;
    const Index rows = a.part.end - a.part.begin, rows_per_span = a.dense_rows() ? rows : 1;
    for (Index row = 0; row < rows; row += rows_per_span) {
      const Span span(a, a.part.begin + row, a.part.channel_begin, 0, rows_per_span * width);
      if (span.length >= L::count) {
        map_rows<L>(a, span, width);
      } else {
        map_rows_scalar(a, span, width);
      }
    }
  }
};

}  // namespace batchnorm::detail
