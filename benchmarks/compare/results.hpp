#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "peer.hpp"
#include "shapes.hpp"

namespace compare {

/// What was measured for one pass over one tensor.
struct Cell {
  std::string scalar;
  NamedShape shape;
  Problem problem;
  Pass pass;
  std::map<std::string, double> seconds;  // by library
  Index bytes_per_value;
  std::optional<Index> workspace_bytes;

  std::optional<double> seconds_of(const std::string& library) const {
    const auto found = seconds.find(library);
    return found == seconds.end() ? std::nullopt : std::optional(found->second);
  }

  double ceiling(Role role = Role::ceiling) const {
    double least = std::numeric_limits<double>::infinity();
    for (const Library& library : libraries()) {
      if (library.role == role) least = std::min(least, seconds_of(library.name).value_or(least));
    }
    return least;
  }

  Index bytes() const { return values_moved(pass, problem) * bytes_per_value; }
};

/// The libraries of some roles, in the order of columns.
inline std::vector<std::string> names_of(std::initializer_list<Role> roles) {
  std::vector<std::string> names;
  for (const Library& library : libraries()) {
    if (std::count(roles.begin(), roles.end(), library.role) > 0) names.push_back(library.name);
  }
  return names;
}

inline const std::string& subject() {
  static const std::string name = names_of({Role::subject}).at(0);
  return name;
}

/// How many times as long as the subject a library takes.
inline std::optional<double> ratio(const Cell& cell, const std::string& library) {
  const auto theirs = cell.seconds_of(library), ours = cell.seconds_of(subject());
  if (!theirs || !ours) return std::nullopt;
  return *theirs / *ours;
}

inline std::optional<double> fraction_of_ceiling(const Cell& cell, const std::string& library = subject(),
                                                 Role role = Role::ceiling) {
  const auto seconds = cell.seconds_of(library);
  if (!seconds || std::isinf(cell.ceiling(role))) return std::nullopt;
  return cell.ceiling(role) / *seconds;
}

inline std::optional<double> fraction_with_sums(const Cell& cell) {
  return fraction_of_ceiling(cell, subject(), Role::ceiling_with_sums);
}

/// Geometric mean and least of the values that there are.
class Summary {
 public:
  void add(const std::optional<double>& value, const std::string& of) {
    if (!value) return;
    log_sum_ += std::log(*value);
    ++count_;
    if (*value < least_) std::tie(least_, least_of_) = std::tie(*value, of);
  }
  std::optional<double> mean() const { return count_ == 0 ? std::nullopt : std::optional(std::exp(log_sum_ / count_)); }
  double least() const { return least_; }
  const std::string& least_of() const { return least_of_; }

 private:
  double log_sum_ = 0;
  int count_ = 0;
  double least_ = std::numeric_limits<double>::infinity();
  std::string least_of_;
};

}  // namespace compare
