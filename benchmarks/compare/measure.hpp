#pragma once

#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "memory.hpp"
#include "results.hpp"
#include "timing.hpp"

namespace compare {

template <class T>
struct Entrant {
  const Library* library;
  std::unique_ptr<Peer<T>> peer;
};

/// Sets up all libraries of some roles that can do the problem.
template <class T>
std::vector<Entrant<T>> enter(const Problem& problem, const Tensors<T>& tensors, std::initializer_list<Role> roles,
                              const std::vector<std::string>& left_out = {}) {
  std::vector<Entrant<T>> entrants;
  for (const Library& library : libraries()) {
    if (std::count(roles.begin(), roles.end(), library.role) == 0) continue;
    if (std::count(left_out.begin(), left_out.end(), library.name) > 0) continue;
    if (auto peer = library.make<T>(problem, tensors)) entrants.push_back({&library, std::move(peer)});
  }
  return entrants;
}

/// Runs one pass of one library on cleared memory and returns where its result lies.
template <class T>
const T* result_of(const Entrant<T>& entrant, Pass pass, const Problem& problem, const Tensors<T>& tensors) {
  if (pass == Pass::backward) entrant.peer->run(Pass::training);
  T* const result = pass == Pass::backward ? tensors.dx : tensors.y;
  std::fill_n(result, problem.size(), std::numeric_limits<T>::quiet_NaN());
  entrant.peer->run(pass);
  entrant.peer->fetch(pass);
  entrant.peer->rest();
  return result;
}

/// NaN anywhere counts as infinitely different.
template <class A, class B>
double largest_difference(const A* a, const B* b, Index count) {
  using Wider = std::conditional_t<std::is_same_v<B, long double>, long double, double>;
  Wider largest = 0;
  for (Index k = 0; k < count; ++k) {
    const Wider difference = std::abs(static_cast<Wider>(a[k]) - static_cast<Wider>(b[k]));
    if (!(difference <= largest)) largest = std::isnan(difference) ? HUGE_VAL : difference;
  }
  return static_cast<double>(largest);
}

/// Libraries that compute different things are not compared in speed.
template <class T>
double check_agreement(const std::vector<Entrant<T>>& entrants, Pass pass, const Problem& problem,
                       const Tensors<T>& tensors) {
  const double tolerance = std::is_same_v<T, float> ? 5e-2 : 1e-10;
  std::vector<T> expected;
  double largest = 0;
  for (const Entrant<T>& entrant : entrants) {
    if (is_ceiling(entrant.library->role)) continue;
    const T* const result = result_of(entrant, pass, problem, tensors);
    if (expected.empty()) {
      expected.assign(result, result + problem.size());
      continue;
    }
    const double difference = largest_difference(result, expected.data(), problem.size());
    if (difference > tolerance) {
      throw std::runtime_error(entrant.library->name + " differs by " + std::to_string(difference) + " in " +
                               name(pass) + " of " + text_of(problem.dims) + " " + name(problem.layout));
    }
    largest = std::max(largest, difference);
  }
  return largest;
}

/// Inference sums nothing.
inline bool takes_part(const Library& library, Pass pass) {
  return pass != Pass::inference || library.role != Role::ceiling_with_sums;
}

/// Times one pass of all entrants beside each other.
template <class T>
std::map<std::string, double> time_all(const std::vector<Entrant<T>>& entrants, Pass pass, double seconds) {
  std::vector<Contestant> contestants;
  std::vector<std::string> names;
  for (const Entrant<T>& entrant : entrants) {
    if (!takes_part(*entrant.library, pass)) continue;
    Peer<T>* const peer = entrant.peer.get();
    contestants.emplace_back([peer, pass] { peer->run(pass); }, [peer] { peer->rest(); });
    names.push_back(entrant.library->name);
  }
  interleave(contestants, seconds);
  std::map<std::string, double> medians;
  for (std::size_t k = 0; k < names.size(); ++k) medians[names[k]] = contestants[k].median_seconds();
  return medians;
}

}  // namespace compare
