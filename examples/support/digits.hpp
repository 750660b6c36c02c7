#pragma once

#include <string>

#include "matrix.hpp"

namespace example {

inline constexpr Index image_side = 28;
inline constexpr Index image_size = image_side * image_side;

struct Digits {
  Matrix images;  // one per row; 0 is paper, 1 is ink
  Labels labels;  // 0 to 9

  Index count() const { return labels.size(); }
};

struct DataSet {
  std::string name;
  Digits training, held_out;
};

inline std::string describe(const DataSet& data) {
  return data.name + ": " + std::to_string(data.training.count()) + " for training and " +
         std::to_string(data.held_out.count()) + " held out";
}

/// Holds out the last tenth.
inline DataSet split(const std::string& name, const Digits& digits) {
  const Index held_out = digits.count() / 10;
  const Index training = digits.count() - held_out;
  return {name,
          {digits.images.topRows(training), digits.labels.head(training)},
          {digits.images.bottomRows(held_out), digits.labels.tail(held_out)}};
}

}  // namespace example
