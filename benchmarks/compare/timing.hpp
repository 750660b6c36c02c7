#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>
#include <vector>

namespace compare {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Something to be timed beside others.
class Contestant {
 public:
  Contestant(std::function<void()> call, std::function<void()> rest) : call_(std::move(call)), rest_(std::move(rest)) {
    call_();
    const auto start = Clock::now();
    call_();
    constexpr double sample_seconds = 1e-3;
    calls_ = static_cast<int>(std::max(1.0, sample_seconds / std::max(seconds_since(start), 1e-8)));
    rest_();
  }

  /// One sample: the mean of as many calls as take about a millisecond, after calls that bring caches and threads into
  /// the state that the library itself leaves behind.
  void sample() {
    const auto start = Clock::now();
    for (int k = 0; k < std::max(1, calls_ / 4); ++k) call_();
    const auto timed = Clock::now();
    for (int k = 0; k < calls_; ++k) call_();
    samples_.push_back(seconds_since(timed) / calls_);
    rest_();
    spent_ += seconds_since(start);
  }

  bool done(double budget) const {
    constexpr std::size_t min_samples = 5;
    return samples_.size() >= min_samples && spent_ >= budget;
  }

  double median_seconds() const { return median(samples_); }

 private:
  std::function<void()> call_, rest_;
  int calls_;
  double spent_ = 0;
  std::vector<double> samples_;
};

/// Samples all in turns, each until it has had its share of the time.
inline void interleave(std::vector<Contestant>& contestants, double seconds) {
  const double share = seconds / static_cast<double>(contestants.size());
  std::vector<Contestant*> turns;
  for (Contestant& contestant : contestants) turns.push_back(&contestant);
  std::mt19937 generator;
  while (!turns.empty()) {
    // In a fixed order each would always find what the same one left behind.
    std::shuffle(turns.begin(), turns.end(), generator);
    for (Contestant* next : turns) next->sample();
    std::erase_if(turns, [&](const Contestant* contestant) { return contestant->done(share); });
  }
}

}  // namespace compare
