#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

#include "experiment.hpp"

namespace example {

using Comparisons = std::vector<Comparison>;

/// One side of a comparison: &Comparison::without or &Comparison::with.
using Side = Run Comparison::*;

inline const Measurement& best(const Run& run) {
  return *std::ranges::max_element(run.history, {}, &Measurement::held_out_accuracy);
}

inline double best_accuracy(const Run& run) { return best(run).held_out_accuracy; }

inline double best_accuracy(const Comparisons& comparisons, Side side) {
  double result = 0;
  for (const Comparison& each : comparisons) result = std::max(result, best_accuracy(each.*side));
  return result;
}

inline std::optional<int> steps_to(const Run& run, double accuracy) {
  for (const Measurement& each : run.history) {
    if (each.held_out_accuracy >= accuracy) return each.step;
  }
  return std::nullopt;
}

/// Whether more than half of the answers come out right; a tenth is chance.
inline bool trains(const Run& run) { return best_accuracy(run) > 0.5; }

/// The largest rate that trains from every scale of weights.
inline std::optional<double> largest_rate(const Comparisons& comparisons, Side side) {
  std::optional<double> result;
  for (const double rate : rates) {
    const auto fails = [&](const Comparison& each) { return each.rate == rate && !trains(each.*side); };
    if (std::ranges::none_of(comparisons, fails)) result = rate;
  }
  return result;
}

/// The most that the scale of the weights changes the best accuracy, the rate being the same.
inline double spread(const Comparisons& comparisons, Side side) {
  double result = 0;
  for (const Comparison& a : comparisons) {
    for (const Comparison& b : comparisons) {
      if (a.rate == b.rate) result = std::max(result, best_accuracy(a.*side) - best_accuracy(b.*side));
    }
  }
  return result;
}

struct LossPair {
  double without, with;
};

/// The held-out losses at the lowest training loss that both runs reach.
inline LossPair losses_at_equal_training_loss(const Comparison& comparison) {
  const auto lowest = [](const Run& run) {
    return std::ranges::min_element(run.history, {}, &Measurement::training_loss)->training_loss;
  };
  const double target = std::max(lowest(comparison.without), lowest(comparison.with));
  const auto held_out_loss = [&](const Run& run) {
    const auto reached = [&](const Measurement& each) { return each.training_loss <= target; };
    return std::ranges::find_if(run.history, reached)->held_out_loss;
  };
  return {held_out_loss(comparison.without), held_out_loss(comparison.with)};
}

/// Over the comparisons in which both runs train; none where there are none.
inline std::optional<LossPair> mean_losses_at_equal_training_loss(const Comparisons& comparisons) {
  LossPair sum{0, 0};
  int count = 0;
  for (const Comparison& each : comparisons) {
    if (!trains(each.without) || !trains(each.with)) continue;
    const LossPair losses = losses_at_equal_training_loss(each);
    sum = {sum.without + losses.without, sum.with + losses.with};
    ++count;
  }
  return count > 0 ? std::optional(LossPair{sum.without / count, sum.with / count}) : std::nullopt;
}

/// From the 15th to the 85th percentile of the sigmoid's input.
inline float width(const Measurement& each) { return each.percentiles[2] - each.percentiles[0]; }

/// The worst of all runs with batch normalization.
inline Agreement worst_agreement(const Comparisons& comparisons) {
  Agreement worst{0, 0};
  for (const Comparison& each : comparisons) {
    worst.largest_difference = std::max(worst.largest_difference, each.with.agreement.largest_difference);
    worst.differing_answers += each.with.agreement.differing_answers;
  }
  return worst;
}

}  // namespace example
