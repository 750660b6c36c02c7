#pragma once

#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "folding.hpp"
#include "format.hpp"
#include "residual_training.hpp"

namespace example {

inline std::string csv(const std::vector<Epoch>& history) {
  std::ostringstream text;
  text << "epoch,training_loss,held_out_loss,held_out_accuracy\n";
  for (const Epoch& each : history) {
    text << each.number << ',' << each.training_loss << ',' << each.held_out_loss << ',' << each.held_out_accuracy
         << '\n';
  }
  return text.str();
}

inline void print_history(const std::vector<Epoch>& history) {
  std::printf("\nepoch   training loss   held-out loss   held-out accuracy\n");
  for (const Epoch& each : history) {
    std::printf("%5d %15.4f %15.4f %19s\n", each.number, each.training_loss, each.held_out_loss,
                percent(each.held_out_accuracy).c_str());
  }
}

inline void print_folding(const Folding& folding) {
  const double before = 1e6 * folding.seconds_before / static_cast<double>(folding.images);
  const double after = 1e6 * folding.seconds_after / static_cast<double>(folding.images);
  std::printf("\nEvery batch normalization folded into the convolution before it:\n");
  std::printf(
      "- Answers: of %td digits %td are answered differently; logits differ by at most %.1e, %.1e of the largest.\n",
      folding.images, folding.differing_answers, folding.largest_difference,
      folding.largest_difference / folding.largest_logit);
  std::printf("- Inference: %.1f us a digit before, %.1f us after: %.2f times as fast.\n", before, after,
              before / after);
}

}  // namespace example
