#pragma once

#include <algorithm>
#include <chrono>
#include <limits>

#include "residual_training.hpp"

namespace example {

/// The network after its batch normalizations are folded into the convolutions, against the network before.
struct Folding {
  Index images;
  double largest_difference;  // of two logits
  double largest_logit;
  Index differing_answers;
  double seconds_before, seconds_after;  // for all images
};

inline double seconds_to_infer(ResidualNetwork& network, const Device& device, const Matrix& images) {
  const auto start = std::chrono::steady_clock::now();
  infer(network, device, images);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The network must be in eval.
inline Folding compare_folded(ResidualNetwork& network, const Device& device, const Matrix& images) {
  ResidualNetwork folded = network;
  folded.fold();
  const Matrix before = infer(network, device, images), after = infer(folded, device, images);
  Folding result{.images = images.rows(),
                 .largest_difference = (after - before).cwiseAbs().maxCoeff(),
                 .largest_logit = before.cwiseAbs().maxCoeff(),
                 .differing_answers = (answers(after).array() != answers(before).array()).count(),
                 .seconds_before = std::numeric_limits<double>::infinity(),
                 .seconds_after = std::numeric_limits<double>::infinity()};
  // In turn, and the best of each, so that what else the machine does falls on both alike.
  for (int pass = 0; pass < 10; ++pass) {
    result.seconds_before = std::min(result.seconds_before, seconds_to_infer(network, device, images));
    result.seconds_after = std::min(result.seconds_after, seconds_to_infer(folded, device, images));
  }
  return result;
}

}  // namespace example
