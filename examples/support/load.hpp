#pragma once

#include <stdexcept>
#include <string>

#include "batches.hpp"
#include "glyphs.hpp"
#include "mnist.hpp"

namespace example {

/// MNIST from a folder, or digits drawn here where none is named.
inline DataSet load(const std::string& folder, unsigned seed) {
  DataSet data = folder.empty() ? draw_digits(seed) : read_mnist(folder);
  if (data.training.count() < batch_size || data.held_out.count() == 0) {
    throw std::runtime_error(describe(data) + " are too few for batches of " + std::to_string(batch_size));
  }
  return data;
}

}  // namespace example
