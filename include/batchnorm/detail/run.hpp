#pragma once

#include <algorithm>

#include "batchnorm/detail/parallel.hpp"
#include "batchnorm/detail/passes.hpp"

// Runs passes on the threads of a device, with the memory of a workspace.

namespace batchnorm::detail {

/// For formulas that have none beside the center.
struct NoCoefficients {};

/// Runs a reduction alone. fill_reduction(coefficients, begin, end) sets those it has beside the center, where it has
/// any.
template <class In, class Formula, class Fill, class T>
void run(const AnyDevice& device, Reduction<In, Formula> reduction, const Fill& fill_reduction,
         Workspace<T>& workspace) {
  reduction.read_long_stretches();
  const Partition& partition = reduction.partition();
  const Index threads = workers(device, partition.parts(), partition.grid.bytes());
  workspace.reserve(reduction.computes(threads), reduction.statistics(threads));
  reduction.use(threads, workspace.computes(), workspace.statistics());
  reduction.fill(fill_reduction);
  run_tasks(device, threads, partition.parts(), Order::forwards,
            [&](Index k, Index worker) { reduction.part(k, worker); });
  reduction.merge();
}

/// Runs a map alone. fill(coefficients, begin, end) sets the coefficients of these channels.
template <class In, class Formula, class Out, class Fill, class T>
void run(const AnyDevice& device, Map<In, Formula, Out> map, const Fill& fill, Workspace<T>& workspace) {
  const Partition& partition = map.partition();
  const Index threads = workers(device, partition.parts(), partition.grid.bytes());
  workspace.reserve(map.computes(threads), 0);
  map.use(threads, workspace.computes());
  map.fill(fill, 0, partition.grid.shape.channels);
  run_tasks(device, threads, partition.parts(), Order::forwards, [&](Index k, Index worker) { map.part(k, worker); });
}

/// Runs a reduction and the map that `fill` makes from its result.
template <class ReduceIn, class ReduceFormula, class FillReduction, class MapIn, class MapFormula, class Out,
          class Fill, class T>
void run(const AnyDevice& device, Reduction<ReduceIn, ReduceFormula> reduction, const FillReduction& fill_reduction,
         Map<MapIn, MapFormula, Out> map, const Fill& fill, Workspace<T>& workspace) {
  const Partition& partition = reduction.partition();
  const bool in_parts = follows_in_parts<MapIn, Out>(partition);
  if (!in_parts) reduction.read_long_stretches();
  const Index parts = partition.parts();
  const Index threads = workers(device, std::max(parts, map.partition().parts()), partition.grid.bytes());
  const Index reduce_computes = reduction.computes(threads);
  workspace.reserve(reduce_computes + map.computes(threads), reduction.statistics(threads));
  reduction.use(threads, workspace.computes(), workspace.statistics());
  map.use(threads, workspace.computes() + reduce_computes);
  reduction.fill(fill_reduction);
  if (in_parts) {
    run_tasks(device, threads, parts, Order::forwards, [&](Index k, Index worker) {
      const Part part = partition[k];
      reduction.part(k, worker);
      map.fill(fill, part.channel_begin, part.channel_end);
      map.part(k, worker);
    });
  } else {
    run_tasks(device, std::min(threads, parts), parts, Order::forwards,
              [&](Index k, Index worker) { reduction.part(k, worker); });
    reduction.merge();
    map.fill(fill, 0, partition.grid.shape.channels);
    const Order order = memory_access().returns_backwards ? Order::backwards : Order::forwards;
    run_tasks(device, threads, map.partition().parts(), order, [&](Index k, Index worker) { map.part(k, worker); });
  }
}

}  // namespace batchnorm::detail
