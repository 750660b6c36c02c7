#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <fstream>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "problem.hpp"

namespace compare {

enum class Pages { as_given, huge };

/// Where tensors lie.
struct Placement {
  Pages pages = Pages::as_given;
  std::size_t offset = 0;  // bytes behind the beginning of a page
};

/// What the system gives to a program that asks for nothing stands in brackets.
inline std::string huge_pages_setting() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string setting;
  return std::getline(file, setting) ? setting : "unknown";
}

/// Memory for values.
template <class T>
class Buffer {
 public:
  explicit Buffer(Index count, const Placement& placement = {})
      : offset_(placement.offset), bytes_(static_cast<std::size_t>(count) * sizeof(T) + offset_) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    if (placement.pages == Pages::huge) madvise(data_, bytes_, MADV_HUGEPAGE);
  }
  ~Buffer() { munmap(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return reinterpret_cast<T*>(static_cast<std::byte*>(data_) + offset_); }

 private:
  std::size_t offset_, bytes_;
  void* data_;
};

/// Normally distributed values. A stretch of them is drawn and repeated: no library takes notice, and large tensors are
/// filled in less time.
template <class T>
void fill_random(T* to, Index count, double mean, double std, unsigned seed) {
  constexpr Index stretch = 1000003;  // prime, so that channels do not repeat each other
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution;
  for (Index k = 0; k < std::min(count, stretch); ++k) to[k] = static_cast<T>(mean + std * distribution(generator));
  for (Index k = stretch; k < count; ++k) to[k] = to[k - stretch];
}

/// What an arena is filled with: affine_std is how far gamma lies from 1 and beta from 0.
struct Contents {
  double x_mean = 0, x_std = 1, affine_std = 0.1;
};

/// The memory of one shape.
template <class T>
class Arena {
 public:
  explicit Arena(const Dimensions& dims, const Placement& placement = {}, const Contents& contents = {})
      : x_(size_of(dims), placement),
        dy_(size_of(dims), placement),
        y_(size_of(dims), placement),
        dx_(size_of(dims), placement) {
    fill_random(x_.data(), size_of(dims), contents.x_mean, contents.x_std, 1);
    fill_random(dy_.data(), size_of(dims), 0, 1, 2);
    for (auto& values : parameters_) values.resize(static_cast<std::size_t>(dims[1]));
    auto& [gamma, beta, mean, var] = parameters_;
    fill_random(gamma.data(), dims[1], 1, contents.affine_std, 3);
    fill_random(beta.data(), dims[1], 0, contents.affine_std, 4);
    fill_random(mean.data(), dims[1], 0, 0.1, 5);
    fill_random(var.data(), dims[1], 1, 0.1, 6);
  }

  Tensors<T> tensors() const {
    const auto& [gamma, beta, mean, var] = parameters_;
    return {x_.data(), dy_.data(), y_.data(), dx_.data(), gamma.data(), beta.data(), mean.data(), var.data()};
  }

 private:
  Buffer<T> x_, dy_, y_, dx_;
  std::array<std::vector<T>, 4> parameters_;
};

}  // namespace compare
