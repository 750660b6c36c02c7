#pragma once

#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "measure.hpp"

namespace compare {

struct Input {
  const char* name;
  double mean, std;
};

inline constexpr std::array inputs = {Input{"mean 0, std 1", 0, 1},     Input{"mean 100, std 1", 100, 1},
                                      Input{"mean 1e4, std 1", 1e4, 1}, Input{"mean 1e6, std 1", 1e6, 1},
                                      Input{"constant 10.1", 10.1, 0},  Input{"constant 1000.1", 1000.1, 0}};

/// The largest errors of one library.
struct Errors {
  double y, dx;
};

struct AccuracyRow {
  const char* input;
  Layout layout;
  std::map<std::string, Errors> errors;  // by library
};

/// y and dx in training without gamma and beta, by the definition and in long double.
class Truth {
 public:
  template <class T>
  Truth(const Problem& problem, const Tensors<T>& tensors) : y(static_cast<std::size_t>(problem.size())), dx(y.size()) {
    for (Index c = 0; c < problem.channels(); ++c) add_channel(tensors, indices_of(problem, c));
  }

  std::vector<long double> y, dx;

 private:
  static std::vector<std::size_t> indices_of(const Problem& problem, Index c) {
    std::vector<std::size_t> indices;
    for (Index o = 0; o < problem.outer(); ++o) {
      for (Index i = 0; i < problem.inner(); ++i) {
        indices.push_back(static_cast<std::size_t>((o * problem.channels() + c) * problem.inner() + i));
      }
    }
    return indices;
  }

  template <class Value>
  static long double mean_over(const std::vector<std::size_t>& indices, const Value& value) {
    long double sum = 0;
    for (const std::size_t k : indices) sum += value(k);
    return sum / static_cast<long double>(indices.size());
  }

  template <class T>
  void add_channel(const Tensors<T>& tensors, const std::vector<std::size_t>& indices) {
    const auto x = [&](std::size_t k) { return static_cast<long double>(tensors.x[k]); };
    const auto dy = [&](std::size_t k) { return static_cast<long double>(tensors.dy[k]); };
    const long double mean = mean_over(indices, x);
    const long double var = mean_over(indices, [&](std::size_t k) { return (x(k) - mean) * (x(k) - mean); });
    const long double inv_std = 1 / std::sqrt(var + static_cast<long double>(epsilon));
    for (const std::size_t k : indices) y[k] = (x(k) - mean) * inv_std;
    const long double mean_dy = mean_over(indices, dy);
    const long double mean_dy_y = mean_over(indices, [&](std::size_t k) { return dy(k) * y[k]; });
    for (const std::size_t k : indices) dx[k] = inv_std * (dy(k) - mean_dy - y[k] * mean_dy_y);
  }
};

/// The errors of all entrants on one input.
template <class T>
std::map<std::string, Errors> errors_of(const std::vector<Entrant<T>>& entrants, const Problem& problem,
                                        const Tensors<T>& tensors) {
  const Truth truth(problem, tensors);
  std::map<std::string, Errors> errors;
  for (const Entrant<T>& entrant : entrants) {
    const auto error = [&](Pass pass, const std::vector<long double>& right) {
      return largest_difference(result_of(entrant, pass, problem, tensors), right.data(), problem.size());
    };
    errors[entrant.library->name] = {error(Pass::training, truth.y), error(Pass::backward, truth.dx)};
  }
  return errors;
}

template <class T>
std::vector<AccuracyRow> measure_accuracy(const std::vector<std::string>& left_out) {
  const Dimensions dims = {32, 16, 28, 28};
  std::vector<AccuracyRow> rows;
  for (const Layout layout : {Layout::nchw, Layout::nhwc}) {
    for (const Input& input : inputs) {
      const Arena<T> arena(dims, {}, {.x_mean = input.mean, .x_std = input.std, .affine_std = 0});
      const Problem problem{dims, layout, 1};
      const auto entrants = enter(problem, arena.tensors(), {Role::subject, Role::competitor}, left_out);
      rows.push_back({input.name, layout, errors_of(entrants, problem, arena.tensors())});
    }
  }
  return rows;
}

}  // namespace compare
