#pragma once

#include "batchnorm/detail/centers.hpp"
#include "batchnorm/detail/sum_tiles.hpp"

namespace batchnorm::detail {

/// The sums of one channel in a block, value by value in Statistic: for those that Compute could not hold.
template <class In, class Formula>
struct SumAgain {
  using Compute = typename In::Compute;
  using Statistic = typename In::Statistic;
  Lines<In> runs;  // of the channel
  Index channel;
  const Statistic* mean;                          // of every channel, if the formula does not find it
  FurtherCoefficients<Compute, Formula> further;  // of every channel
  Statistic& center;
  Statistic& sum;
  Statistic& product_sum;

  [[gnu::noinline, gnu::cold]] void run() const {
    if (!take_constant()) sum_wide();
  }

 private:
  /// Where the last input is constant (a dead channel, no gradient), its sums are known.
  bool take_constant() const {
    if constexpr (has_weights<Formula>) return false;
    const Compute constant = runs.template value<In::count - 1>(0, 0);
    if (!(constant - constant == Compute(0)) || (!Formula::finds_mean && constant != Compute(0))) return false;
    for (Index line = 0; line < runs.lines; ++line) {
      for (Index i = 0; i < runs.length; ++i) {
        if (runs.template value<In::count - 1>(line, i) != constant) return false;
      }
    }
    if constexpr (Formula::finds_mean) {
      center = static_cast<Statistic>(constant);
      sum = product_sum = Statistic(0);
    }
    return true;
  }

  void sum_wide() const {
    Statistic c[Formula::coefficients];
    c[Formula::center] = wide_center();
    for (std::size_t k = 1; k < further.size(); ++k) c[k] = static_cast<Statistic>(further[k][channel]);
    Statistic wide_sum(0), wide_product_sum(0);
    for (Index line = 0; line < runs.lines; ++line) {
      for (Index i = 0; i < runs.length; ++i) {
        Statistic v[Formula::inputs];
        const Pointers<In> at = runs.place(line, i);
        for_each_index<In::count>([&](auto k) { at.template load<Lanes<Statistic, Statistic, 0>, k>(v[k], 0); });
        Formula::accumulate(v, c, wide_sum, wide_product_sum);
      }
    }
    center = c[Formula::center];
    sum = wide_sum;
    product_sum = wide_product_sum;
  }

  Statistic wide_center() const {
    if constexpr (!Formula::finds_mean) {
      return mean[channel];
    } else if constexpr (has_weights<Formula>) {
      return static_cast<Statistic>(first_weighted<Formula::weights>(runs));
    } else {
      return static_cast<Statistic>(runs.template value<0>(0, 0));
    }
  }
};

}  // namespace batchnorm::detail
