#pragma once

#include <array>
#include <cstdint>

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
  bool streams;              // store past the cache
  bool backwards;            // walk each span from its end

  Index width() const { return part.channels() * grid.shape.inner; }

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
  Index channel;
  Index length;

  Span(const Arguments& a, Index outer, Index first_channel, Index offset, Index size)
      : channel(first_channel), length(size) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < in.size(); ++k) {
      in[k] = a.in[k].data + outer * a.in[k].outer_stride + channel * a.in[k].channel_stride + offset;
    }
    out = a.out.data + outer * a.out.outer_stride + channel * a.out.channel_stride + offset;
  }
};

// ---- Where the coefficients come from: `get` gives those of one vector, `next` moves on by the step of `start`.

/// By runs: the same ones for the whole span.
template <class L, class Arguments>
class RunCoefficients {
 public:
  BATCHNORM_INLINE RunCoefficients(const Arguments& a, Index channel) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < count; ++k) L::fill(values_[k], a.per_channel[k][channel]);
  }
  BATCHNORM_INLINE void start(Index, Index) {}
  BATCHNORM_INLINE void next() {}
  BATCHNORM_INLINE void get(typename L::V (&c)[Arguments::Formula::coefficients]) const {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < count; ++k) c[k] = values_[k];
  }

 private:
  static constexpr std::size_t count = Arguments::Formula::coefficients;
  typename L::V values_[count];
};

/// By columns: they repeat after each row.
template <class L, class Arguments>
class ColumnCoefficients {
 public:
  BATCHNORM_INLINE ColumnCoefficients(const Arguments& a, Index) : values_(a.per_column), width_(a.width()) {}
  BATCHNORM_INLINE void start(Index i, Index step) {
    column_ = i < width_ ? i : i % width_;  // a division costs as much as several vectors
    step_ = step >= 0 ? step : step + width_;
    if (step_ < 0 || step_ >= width_) step_ = (step % width_ + width_) % width_;
  }
  BATCHNORM_INLINE void next() {
    column_ += step_;
    if (column_ >= width_) column_ -= width_;
  }
  BATCHNORM_INLINE void get(typename L::V (&c)[Arguments::Formula::coefficients]) const {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < values_.size(); ++k) L::Computed::load(c[k], values_[k] + column_);
  }

 private:
  typename Arguments::Coefficients values_;
  Index width_, step_ = 0, column_ = 0;
};

/// Coefficients column by column, and the first ones once more behind the last.
template <class Arguments>
void expand_coefficients(const Arguments& a) {
  const Index inner = a.grid.shape.inner, width = a.width();
#pragma GCC unroll 8
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

// ---- One span.

template <class L, class Arguments, class Coefficients>
BATCHNORM_INLINE void apply_at(const Span<Arguments>& span, Index i, const Coefficients& coefficients,
                               typename L::V& result) {
  typename L::V v[Arguments::Formula::inputs], c[Arguments::Formula::coefficients];
#pragma GCC unroll 8
  for (std::size_t k = 0; k < Arguments::Formula::inputs; ++k) L::load(v[k], span.in[k] + i);
  coefficients.get(c);
  Arguments::Formula::apply(v, c, result);
}

/// The values [begin, end), which fill whole vectors.
template <class L, bool Streams, template <class, class> class Coefficients, class Arguments>
BATCHNORM_INLINE void map_vectors(const Arguments& a, const Span<Arguments>& span, Index begin, Index end) {
  const Index step = a.backwards ? -L::count : L::count;
  Index i = a.backwards ? end - L::count : begin;
  Coefficients<L, Arguments> coefficients(a, span.channel);
  coefficients.start(i, step);
  for (Index left = (end - begin) / L::count; left > 0; --left) {
    typename L::V result;
    apply_at<L>(span, i, coefficients, result);
    if constexpr (Streams) {
      L::stream(span.out + i, result);
    } else {
      L::store(span.out + i, result);
    }
    i += step;
    coefficients.next();
  }
}

/// Past the cache, with stores that must be aligned: one value at a time up to there, and behind the last vector.
template <class L, template <class, class> class Coefficients, class Arguments>
BATCHNORM_INLINE void stream_span(const Arguments& a, const Span<Arguments>& span) {
  using Single = Lanes<typename Arguments::Scalar, typename Arguments::Compute, 0>;
  const auto address = static_cast<Index>(reinterpret_cast<std::uintptr_t>(span.out));
  const Index head = (round_up(address, L::bytes) - address) / static_cast<Index>(sizeof(typename Arguments::Scalar));
  const Index begin = std::min(head, span.length);
  const Index end = span.length - (span.length - begin) % L::count;
  map_vectors<Single, false, Coefficients>(a, span, 0, begin);
  map_vectors<L, true, Coefficients>(a, span, begin, end);
  map_vectors<Single, false, Coefficients>(a, span, end, span.length);
}

template <class L, template <class, class> class Coefficients, class Arguments>
BATCHNORM_INLINE void map_span(const Arguments& a, const Span<Arguments>& span) {
  if (span.length < L::count) {
    using Single = Lanes<typename Arguments::Scalar, typename Arguments::Compute, 0>;
    return map_vectors<Single, false, Coefficients>(a, span, 0, span.length);
  }
  if constexpr (L::bytes != 0) {
    if (a.streams) return stream_span<L, Coefficients>(a, span);
  }
  // The last vector is shifted back where the values end within it; computed first and stored last, for in place.
  const Index shifted = span.length - L::count;
  typename L::V last;
  Coefficients<L, Arguments> coefficients(a, span.channel);
  coefficients.start(shifted, 0);
  apply_at<L>(span, shifted, coefficients, last);
  map_vectors<L, false, Coefficients>(a, span, 0, round_up(shifted, L::count));
  L::store(span.out + shifted, last);
}

// ---- The kernel.

struct MapKernel {
  template <int Bytes, class Arguments>
  BATCHNORM_INLINE static void run(const Arguments& a) {
    using L = Lanes<typename Arguments::Scalar, typename Arguments::Compute, Bytes>;
    if (a.grid.by_columns) {
      expand_coefficients(a);
      const Index rows = a.part.end - a.part.begin, rows_per_span = a.dense_rows() ? rows : 1;
      for (Index row = a.part.begin; row < a.part.end; row += rows_per_span) {
        map_span<L, ColumnCoefficients>(a, Span(a, row, a.part.channel_begin, 0, rows_per_span * a.width()));
      }
    } else {
      const Index pieces = a.grid.pieces_per_run();
      for (Index channel = a.part.channel_begin; channel < a.part.channel_end; ++channel) {
        for (Index p = a.part.begin; p < a.part.end; ++p) {
          map_span<L, RunCoefficients>(a, Span(a, p / pieces, channel, a.grid.piece_begin(p), a.grid.piece_size(p)));
        }
      }
    }
    if (a.streams) L::finish_streaming();
  }
};

}  // namespace batchnorm::detail
