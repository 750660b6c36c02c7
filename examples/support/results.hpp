#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "experiment.hpp"

namespace example {

inline std::string csv(const std::vector<Comparison>& comparisons) {
  std::ostringstream text;
  text << "weight_std,rate,batch_norm,step,training_loss,held_out_loss,held_out_accuracy,"
          "percentile_15,percentile_50,percentile_85\n";
  const auto add = [&](const Comparison& each, bool batch_norm, const Run& run) {
    for (const Measurement& m : run.history) {
      text << each.weight_std << ',' << each.rate << ',' << batch_norm << ',' << m.step << ',' << m.training_loss << ','
           << m.held_out_loss << ',' << m.held_out_accuracy << ',' << m.percentiles[0] << ',' << m.percentiles[1] << ','
           << m.percentiles[2] << '\n';
    }
  };
  for (const Comparison& each : comparisons) {
    add(each, false, each.without);
    add(each, true, each.with);
  }
  return text.str();
}

}  // namespace example
