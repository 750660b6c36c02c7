#pragma once

#include <cstdio>
#include <optional>
#include <string>

#include "analysis.hpp"
#include "format.hpp"

namespace example {

inline std::string points(double fraction) { return format("%.1f points", 100 * fraction); }
inline std::string normal(double std) { return format("N(0, %g)", std); }
inline std::string number(std::optional<double> value, const char* otherwise) {
  return value ? format("%g", *value) : otherwise;
}

inline std::string last_losses(const Run& run) {
  return format("%.3f / %.3f", run.history.back().training_loss, run.history.back().held_out_loss);
}

inline std::string row(const Comparison& each) {
  const double without = best_accuracy(each.without), with = best_accuracy(each.with);
  return format("%-10s %5g %9s %8s %10s %8s %17s %15s", normal(each.weight_std).c_str(), each.rate,
                percent(without).c_str(), percent(with).c_str(), number(steps_to(each.without, with), "never").c_str(),
                number(steps_to(each.with, without), "never").c_str(), last_losses(each.without).c_str(),
                last_losses(each.with).c_str());
}

inline std::string convergence(const Comparison& each) {
  const Measurement& other = best(each.without);
  const auto step = steps_to(each.with, other.held_out_accuracy);
  return "Convergence: from " + normal(each.weight_std) + format(" at rate %g the best accuracy without, ", each.rate) +
         percent(other.held_out_accuracy) + format(" at step %d, ", other.step) +
         (step ? format("is reached with at step %d: %.1f times sooner.", *step, double(other.step) / *step)
               : "is never reached with.");
}

inline std::string best_accuracies(const Comparisons& comparisons) {
  return "Accuracy: the best of all is " + percent(best_accuracy(comparisons, &Comparison::without)) + " without, " +
         percent(best_accuracy(comparisons, &Comparison::with)) + " with.";
}

inline std::string learning_rate(const Comparisons& comparisons) {
  return "Learning rate: the largest that trains from every scale of weights: " +
         number(largest_rate(comparisons, &Comparison::without), "none") + " without, " +
         number(largest_rate(comparisons, &Comparison::with), "none") + " with" +
         format(" (tried up to %g; to train is to pass 50 %%).", rates.back());
}

inline std::string trained_only_with(const Comparisons& comparisons) {
  std::string settings;
  for (const Comparison& each : comparisons) {
    if (trains(each.without) || !trains(each.with)) continue;
    settings += (settings.empty() ? "" : "; ") + normal(each.weight_std) + format(" at rate %g", each.rate);
  }
  return "Trained only with batch normalization: " + (settings.empty() ? "none" : settings) + ".";
}

inline std::string initial_weights(const Comparisons& comparisons) {
  return "Initial weights: their scale changes the best accuracy by up to " +
         points(spread(comparisons, &Comparison::without)) + " without, " +
         points(spread(comparisons, &Comparison::with)) + " with.";
}

inline std::string regularization(const Comparisons& comparisons) {
  const auto losses = mean_losses_at_equal_training_loss(comparisons);
  if (!losses) return "Regularization: no setting trains both without and with.";
  return format("Regularization: at the same training loss the mean held-out loss is %.3f without, %.3f with.",
                losses->without, losses->with);
}

inline std::string sigmoid_input(const Comparison& each) {
  const auto widths = [](const Run& run) {
    return format("%.2f, at the end %.2f", width(run.history.front()), width(run.history.back()));
  };
  return "Sigmoid input: the middle 70 % spans at first " + widths(each.without) + " without; at first " +
         widths(each.with) + " with" +
         format(" (one unit of the last hidden layer, %s, rate %g).", normal(each.weight_std).c_str(), each.rate);
}

inline std::string inference(const Comparisons& comparisons) {
  const Agreement worst = worst_agreement(comparisons);
  return format("Inference with running statistics: one image at a time and all at once, %td answers differ, ",
                worst.differing_answers) +
         format("probabilities by at most %.1e.", worst.largest_difference);
}

inline void print_report(const Comparisons& comparisons) {
  const int last_step = comparisons.front().with.history.back().step;
  std::printf("\nWithout and with batch normalization, from the same weights, on the same batches\n\n");
  std::printf("                    best held-out     first reaching the          loss after %d steps,\n", last_step);
  std::printf("                       accuracy       other's best, step          training / held-out\n");
  std::printf("weights     rate   without     with    without     with           without            with\n");
  for (const Comparison& each : comparisons) std::printf("%s\n", row(each).c_str());
  std::printf("\n");
  for (const std::string& finding :
       {best_accuracies(comparisons), convergence(comparisons.front()), learning_rate(comparisons),
        trained_only_with(comparisons), initial_weights(comparisons), regularization(comparisons),
        sigmoid_input(comparisons.front()), inference(comparisons)}) {
    std::printf("- %s\n", finding.c_str());
  }
}

}  // namespace example
