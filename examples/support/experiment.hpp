#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "batches.hpp"
#include "classification.hpp"
#include "digits.hpp"
#include "network.hpp"
#include "progress.hpp"

namespace example {

inline constexpr std::array weight_stds = {0.1, 0.01};
inline constexpr std::array rates = {0.1, 1.0, 10.0};
inline constexpr int measuring_interval = 50;

/// In inference, on the held-out digits where nothing else is said.
struct Measurement {
  int step;
  double training_loss;  // of the first 1,000 training digits
  double held_out_loss, held_out_accuracy;
  std::array<float, 3> percentiles;  // 15, 50, 85 of the input of one sigmoid of the last hidden layer
};

/// Inference on one image at a time, against all at once.
struct Agreement {
  double largest_difference;  // of two probabilities
  Index differing_answers;
};

struct Run {
  std::vector<Measurement> history;
  Agreement agreement;
};

/// Two runs from the same weights on the same batches.
struct Comparison {
  double weight_std, rate;
  Run without, with;
};

inline std::array<float, 3> percentiles(Eigen::VectorXf values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](Index percent) { return values((values.size() - 1) * percent / 100); };
  return {at(15), at(50), at(85)};
}

inline Measurement measure(const Network& network, const DataSet& data, int step) {
  const Index sample = std::min<Index>(data.training.count(), 1000);
  const auto training = network.infer(data.training.images.topRows(sample));
  const auto held_out = network.infer(data.held_out.images);
  return {.step = step,
          .training_loss = mean_loss(training.log_probabilities, data.training.labels.head(sample)),
          .held_out_loss = mean_loss(held_out.log_probabilities, data.held_out.labels),
          .held_out_accuracy = accuracy(held_out.log_probabilities, data.held_out.labels),
          .percentiles = percentiles(held_out.sigmoid_input.col(0))};
}

inline Agreement compare_one_by_one(const Network& network, const Matrix& images) {
  const Matrix together = network.infer(images).log_probabilities;
  Matrix one_by_one(together.rows(), together.cols());
  for (Index i = 0; i < images.rows(); ++i) one_by_one.row(i) = network.infer(images.row(i)).log_probabilities;
  return {.largest_difference = (together.array().exp() - one_by_one.array().exp()).abs().maxCoeff(),
          .differing_answers = (answers(together).array() != answers(one_by_one).array()).count()};
}

struct Training {
  double weight_std, rate;
  Normalization normalization;
  int steps;
  unsigned seed;
};

inline Run train(const Training& training, const DataSet& data, Progress& progress) {
  Run run;
  Network network(training.weight_std, training.normalization, training.seed);
  Batches batches(data.training.count(), training.seed);
  for (int step = 1; step <= training.steps; ++step) {
    const auto batch = batches.next();
    network.train(data.training.images(batch, Eigen::all), data.training.labels(batch),
                  static_cast<float>(training.rate));
    if (step % measuring_interval == 0 || step == training.steps) run.history.push_back(measure(network, data, step));
    progress.advance(1);
  }
  run.agreement = compare_one_by_one(network, data.held_out.images);
  return run;
}

/// An exception in a task comes out here.
inline void run_all(std::vector<std::packaged_task<void()>>& tasks, unsigned threads) {
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < tasks.size(); i = next++) tasks[i]();
  };
  {
    std::vector<std::jthread> workers;
    for (unsigned i = 0; i < threads; ++i) workers.emplace_back(work);
  }
  for (auto& task : tasks) task.get_future().get();
}

/// Every rate from every scale of weights. Each run stays on one thread, so `threads` changes nothing but the time.
inline std::vector<Comparison> run_experiment(const DataSet& data, int steps, unsigned seed, unsigned threads) {
  std::vector<Comparison> comparisons;
  for (const double weight_std : weight_stds) {
    for (const double rate : rates) comparisons.push_back({weight_std, rate, {}, {}});
  }
  Progress progress(2 * std::ssize(comparisons) * steps);
  std::vector<std::packaged_task<void()>> tasks;
  for (Comparison& each : comparisons) {
    const auto add = [&](Normalization normalization, Run& run) {
      const Training training{each.weight_std, each.rate, normalization, steps, seed};
      tasks.emplace_back([&data, &progress, &run, training] { run = train(training, data, progress); });
    };
    add(Normalization::none, each.without);
    add(Normalization::batch, each.with);
  }
  run_all(tasks, threads);
  return comparisons;
}

}  // namespace example
