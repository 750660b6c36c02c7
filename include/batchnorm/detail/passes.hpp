#pragma once

#include <algorithm>
#include <array>
#include <tuple>

#include "batchnorm/detail/coefficients.hpp"
#include "batchnorm/detail/map.hpp"
#include "batchnorm/detail/reduce.hpp"
#include "batchnorm/detail/targets.hpp"
#include "batchnorm/scalar.hpp"

// A pass is a kernel over all parts of a tensor. A reduction and the map that needs its result may go over the parts
// together, where each part holds whole channels, or one after the other.

namespace batchnorm::detail {

template <class In, class... Out>
Grid make_grid_of(bool weighted, const In& in, const Out&... out) {
  const auto dense = [&](const auto& is_dense) { return in.all(is_dense) && (is_dense(out) && ...); };
  return make_grid<typename In::Widest>(in.shape(), dense([](const auto& view) { return view.dense_rows(); }),
                                        dense([](const auto& view) { return view.dense_channels(); }), weighted);
}

/// Of what a reduction reads, or a map reads and writes.
template <class In, class... Out>
Grid grid_of(const In& in, const Out&... out) {
  return make_grid_of(false, in, out...);
}
template <class In, class... Out>
Grid weighted_grid_of(const In& in, const Out&... out) {
  return make_grid_of(true, in, out...);
}

/// Of all inputs and outputs.
template <class In, class Out>
Index total_bytes(const Grid& grid) {
  return (In::tensors + tensors_of<Out>)*grid.bytes();
}

/// Columns that a worker's scratch arrays hold.
template <class Compute>
Index scratch_columns(const Partition& partition) {
  const Grid& grid = partition.grid;
  if (grid.by_columns) return grid.fold * partition.channel_step * grid.shape.inner + max_lanes;
  return std::min(partition.channel_step * pack_lanes<Compute>, max_columns);
}

/// A formula, summed over a whole tensor into `first` and `second` of every channel.
template <class In, class Formula>
class Reduction {
 public:
  using Compute = typename In::Compute;
  using Statistic = typename In::Statistic;
  static_assert(In::count == Formula::inputs);

  Reduction(const Partition& partition, const In& in, const Statistic* mean, Statistic* first, Statistic* second)
      : partition_(partition),
        in_(in),
        mean_(mean),
        first_(first),
        second_(second),
        further_(partition.grid.shape.channels, partition.grid.by_columns ? scratch_columns<Compute>(partition) : 0,
                 0) {}

  const Partition& partition() const { return partition_; }
  /// Where no map follows part by part.
  void read_long_stretches() {
    partition_ = with_long_stretches(partition_, PartReduction<In, Formula>::channels_together);
  }

  Index computes(Index workers) const {
    return further_.computes(workers) +
           workers * column_arrays * Slices<Compute>::padded(scratch_columns<Compute>(partition_));
  }
  Index statistics(Index workers) const {
    const Index slots =
        partition_.whole_channels() ? 0 : 2 * partition_.position_parts * partition_.grid.shape.channels;
    return Slices<Statistic>::padded(slots) + workers * 3 * Slices<Statistic>::padded(partition_.channel_step);
  }

  void use(Index workers, Compute* computes, Statistic* statistics) {
    further_.use(computes);
    computes_ = computes + further_.computes(workers);
    slots_ = statistics;
    statistics_ = statistics + this->statistics(0);
  }

  /// Sets the coefficients that the formula has beside the center.
  template <class Fill>
  void fill(const Fill& fill) const {
    if constexpr (Formula::coefficients > 1) fill(further_.per_channel(), 0, partition_.grid.shape.channels);
  }

  void part(Index k, Index worker) const {
    const bool final = partition_.whole_channels();
    Statistic* const part_slot = slot(partition_.position_part(k));
    PartReduction<In, Formula>{partition_.grid,
                               partition_[k],
                               in_,
                               mean_,
                               further_.per_channel(),
                               final ? first_ : part_slot,
                               final ? second_ : part_slot + partition_.grid.shape.channels,
                               scratch(worker)}
        .run();
  }

  /// Merges the slots of the position parts in their order.
  void merge() const {
    if (partition_.whole_channels()) return;
    const Index channels = partition_.grid.shape.channels;
    Statistic before(0);
    for (Index k = 0; k < partition_.position_parts; ++k) {
      const Part part = partition_[k * partition_.channel_parts];
      const Statistic count = count_between<Formula>(partition_.grid, in_, part.begin, part.end);
      merge_channels<Formula>(first_, second_, slot(k), slot(k) + channels, channels, before, count);
      before += count;
    }
  }

 private:
  static constexpr Index column_arrays = 7;  // of a worker, beside the coefficients

  Statistic* slot(Index k) const { return slots_ + 2 * k * partition_.grid.shape.channels; }

  ReduceScratch<Compute, Statistic, Formula> scratch(Index worker) const {
    const Index columns = scratch_columns<Compute>(partition_), channels = partition_.channel_step;
    Slices<Compute> computes(computes_ + worker * column_arrays * Slices<Compute>::padded(columns));
    Slices<Statistic> statistics(statistics_ + worker * 3 * Slices<Statistic>::padded(channels));
    ReduceScratch<Compute, Statistic, Formula> scratch;
    Sums<Compute*>& sums = scratch.columns;
    ChannelSums<Statistic>& block = scratch.block;
    for (Compute** array : {&scratch.center, &sums.sum, &sums.sum_error, &sums.product_sum, &sums.product_error,
                            &scratch.partial.sum, &scratch.partial.product_sum}) {
      *array = computes.take(columns);
    }
    for (Statistic** array : {&block.center, &block.sum, &block.product_sum}) *array = statistics.take(channels);
    scratch.further = further_.per_column(worker);
    return scratch;
  }

  Partition partition_;
  In in_;
  const Statistic* mean_;
  Statistic *first_, *second_;
  CoefficientArrays<Compute, std::tuple_size_v<FurtherCoefficients<Compute, Formula>>> further_;
  Compute* computes_ = nullptr;
  Statistic *slots_ = nullptr, *statistics_ = nullptr;
};

/// A formula, applied to a whole tensor with coefficients for every channel.
template <class In, class Formula, class Out>
class Map {
 public:
  using Compute = typename In::Compute;
  static_assert(In::count == Formula::inputs);

  /// `read_before`: whether a reduction has read each part just before it.
  Map(const Partition& partition, const In& in, const Out& out, bool read_before)
      : partition_(partition),
        in_(in),
        out_(out),
        read_before_(read_before),
        repeats_(row_repeats()),
        coefficients_(std::max<Index>(repeats_, 1) * partition.grid.shape.channels, map_columns(),
                      partition.grid.by_columns ? lane_of(out) : 0) {}

  const Partition& partition() const { return partition_; }

  Index computes(Index workers) const { return coefficients_.computes(workers); }
  void use(Index threads, Compute* computes) {
    streams_ = may_stream(out_, threads);
    coefficients_.use(computes);
  }

  /// Sets the coefficients of these channels, which `part` will read.
  template <class Fill>
  void fill(const Fill& fill, Index begin, Index end) const {
    fill(coefficients_.per_channel(), begin, end);
    const Shape& shape = partition_.grid.shape;
    if (repeats_ == 0 || shape.inner > 1) return;
    for (Compute* const array : coefficients_.per_channel()) repeat_columns(array, shape.channels, repeats_);
  }

  void part(Index k, Index worker) const {
    PartMap<In, Formula, Out>{partition_.grid,
                              partition_[k],
                              in_,
                              out_,
                              streams_,
                              read_before_,
                              repeats_,
                              coefficients_.per_channel(),
                              coefficients_.per_column(worker)}
        .run();
  }

 private:
  /// How often each part's arrays repeat a row's coefficients; 0 where the rows of a part do not follow one another.
  Index row_repeats() const {
    const Grid& grid = partition_.grid;
    const bool dense =
        !has_weights<Formula> && out_.dense_rows() && in_.all([](const auto& view) { return view.dense_rows(); });
    if (!grid.by_columns || grid.positions == 1 || partition_.channel_parts > 1 || !dense) return 0;
    constexpr Index column_bytes = Formula::coefficients * static_cast<Index>(sizeof(Compute));
    return has_vectors<Compute> ? coefficient_repeats(grid.shape, pack_lanes<Compute>, column_bytes) : 1;
  }

  /// Columns that a worker's scratch arrays hold: where channels are not the columns themselves.
  Index map_columns() const {
    const Grid& grid = partition_.grid;
    if (!grid.by_columns || grid.shape.inner == 1) return 0;
    return std::max<Index>(repeats_, 1) * partition_.channel_step * grid.shape.inner + max_lanes;
  }

  /// Where the caches do not hold the tensors, nor the output's memory because it is an input's.
  template <class T>
  bool may_stream_to(const View<T>& out, Index threads) const {
    const void* const memory = out.data;
    return memory_access().streams(total_bytes<In, Out>(partition_.grid), threads) &&
           reinterpret_cast<std::uintptr_t>(memory) % sizeof(T) == 0 &&
           in_.all([&](const auto& view) { return !lies_at(view, memory); });
  }
  bool may_stream_to(const View<Bit>&, Index) const { return false; }

  template <class T>
  Streams<View<T>> may_stream(const View<T>& out, Index threads) const {
    return {may_stream_to(out, threads)};
  }
  template <class First, class Second>
  Streams<Out> may_stream(const TwoOutputs<First, Second>& out, Index threads) const {
    const bool first = may_stream_to(out.first, threads);
    return {first, (!first || memory_access().streams_two) && may_stream_to(out.second, threads)};
  }

  Partition partition_;
  In in_;
  Out out_;
  bool read_before_;
  Streams<Out> streams_{};
  Index repeats_;
  CoefficientArrays<Compute, Formula::coefficients> coefficients_;
};

template <class Formula, class In>
Reduction<In, Formula> make_reduction(const Partition& partition, const In& in, const typename In::Statistic* mean,
                                      typename In::Statistic* first, typename In::Statistic* second) {
  return {partition, in, mean, first, second};
}

template <class Formula, class In, class Out>
Map<In, Formula, Out> make_map(const Partition& partition, const In& in, const Out& out) {
  return {partition, in, out, false};
}

/// Whether a map follows a reduction in each of its parts, which are then still in a cache. What a core reads ahead of,
/// and runs that a large L3 holds, with the output, are faster to map in the order of memory.
template <class In, class Out>
bool follows_in_parts(const Partition& partition) {
  const Grid& grid = partition.grid;
  const Index bytes = total_bytes<In, Out>(grid);
  const MemoryAccess& access = memory_access();
  const bool straight = grid.by_columns ? maps_straight(grid, bytes) && !access.streams(bytes) : access.keeps(bytes);
  return partition.whole_channels() && !straight;
}

/// A map behind a reduction over `partition`: over the same parts, where it follows in each part.
template <class Formula, class In, class Out>
Map<In, Formula, Out> make_map_after(Partition partition, const In& in, const Out& out) {
  constexpr auto coefficient_bytes = Formula::coefficients * static_cast<Index>(sizeof(typename In::Compute));
  constexpr Index few = 3;
  if (!follows_in_parts<In, Out>(partition)) {
    return make_map<Formula>(make_linear_partition(partition.grid, In::tensors, tensors_of<Out>), in, out);
  }
  if (coefficient_bytes > few * partition.grid.value_bytes) {
    // By columns each coefficient is one more array to read: many cost more than the vectors that ends of runs waste.
    walk_long_runs(partition.grid);
  }
  return {partition, in, out, true};
}

}  // namespace batchnorm::detail
