#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "matrix.hpp"

namespace example {

inline constexpr Index batch_size = 60;

/// Indices of training digits: each digit once in random order, then all again in another.
class Batches {
 public:
  Batches(Index digits, unsigned seed) : order_(static_cast<std::size_t>(digits)), generator_(seed) {
    std::iota(order_.begin(), order_.end(), Index{0});
    end_ = order_.size();
  }

  Eigen::Map<const Eigen::Matrix<Index, Eigen::Dynamic, 1>> next() {
    constexpr auto size = static_cast<std::size_t>(batch_size);
    if (end_ + size > order_.size()) {
      std::shuffle(order_.begin(), order_.end(), generator_);
      end_ = 0;
    }
    end_ += size;
    return {order_.data() + end_ - size, batch_size};
  }

 private:
  std::vector<Index> order_;
  std::mt19937 generator_;
  std::size_t end_;
};

}  // namespace example
