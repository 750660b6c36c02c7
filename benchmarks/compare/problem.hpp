#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

namespace compare {

using Index = std::int64_t;

enum class Pass { training, inference, backward };
enum class Layout { nchw, nhwc, nc };

inline constexpr std::array passes = {Pass::training, Pass::inference, Pass::backward};
inline constexpr std::array layouts = {Layout::nchw, Layout::nhwc, Layout::nc};

inline constexpr double epsilon = 1e-5;
inline constexpr double momentum = 0.1;

inline const char* name(Pass pass) {
  constexpr const char* names[] = {"training", "inference", "backward"};
  return names[static_cast<int>(pass)];
}

/// Rank 5 included: NCHW stands for NCDHW, too.
inline const char* name(Layout layout) {
  constexpr const char* names[] = {"NCHW", "NHWC", "NC"};
  return names[static_cast<int>(layout)];
}

/// The size of a tensor: N, C, then depth, height and width, whatever the layout.
using Dimensions = std::vector<Index>;

inline Index size_of(const Dimensions& dims) {
  return std::accumulate(dims.begin(), dims.end(), Index{1}, std::multiplies<>());
}

inline std::string text_of(const Dimensions& dims) {
  std::string text;
  for (const Index size : dims) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

struct Problem {
  Dimensions dims;
  Layout layout;
  int threads;

  Index size() const { return size_of(dims); }
  Index channels() const { return dims[1]; }
  Index values_per_channel() const { return size() / channels(); }

  /// Sizes in the order of memory, slowest first.
  Dimensions memory_dims() const {
    if (layout != Layout::nhwc) return dims;
    Dimensions result = dims;
    result.erase(result.begin() + 1);
    result.push_back(channels());
    return result;
  }
  Index channel_axis() const { return layout == Layout::nhwc ? static_cast<Index>(dims.size()) - 1 : 1; }

  Index outer() const { return layout == Layout::nhwc ? values_per_channel() : dims[0]; }
  Index inner() const { return layout == Layout::nhwc ? 1 : values_per_channel() / dims[0]; }
};

/// Values read and written by two sweeps over the tensors, or the one of inference.
inline Index values_moved(Pass pass, const Problem& problem) {
  constexpr Index tensors[] = {3, 2, 5};
  return tensors[static_cast<int>(pass)] * problem.size();
}

/// Memory that all libraries work on, each in its turn.
template <class T>
struct Tensors {
  const T *x, *dy;
  T *y, *dx;
  const T *gamma, *beta, *running_mean, *running_var;  // one value per channel
};

}  // namespace compare
