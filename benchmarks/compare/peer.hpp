#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "problem.hpp"

namespace compare {

/// Batch normalization by one library, set up for one problem.
template <class T>
class Peer {
 public:
  Peer() = default;
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  virtual ~Peer() = default;

  /// `backward` differentiates the last training pass.
  virtual void run(Pass pass) = 0;

  /// Puts the result of the last run into y or dx where the library has its own memory for it.
  virtual void fetch(Pass) {}

  /// Sends the library's threads to sleep, so that they do not spin while another library is measured.
  virtual void rest() {}

  /// Memory that a pass keeps for its next call, in bytes; none where the library does not say.
  virtual std::optional<Index> workspace_bytes(Pass) const { return std::nullopt; }
};

enum class Role {
  subject,
  ceiling,
  ceiling_with_sums,  // with the arithmetic of the sums, too
  competitor,
  variant,   // of the competitor before it: timed, but not compared otherwise
  reference  // plain code for one line of the report, in no table
};

inline bool is_ceiling(Role role) { return role == Role::ceiling || role == Role::ceiling_with_sums; }

/// Makes a peer; none where the library cannot do the problem, or not in reasonable time.
template <class T>
using Maker = std::unique_ptr<Peer<T>> (*)(const Problem&, const Tensors<T>&);

struct Library {
  std::string name, version;
  Role role;
  int order;  // of columns
  Maker<float> make_float;
  Maker<double> make_double;  // null where the library has no double

  template <class T>
  std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) const {
    const Maker<T> maker = std::get<Maker<T>>(std::tuple(make_float, make_double));
    return maker == nullptr ? nullptr : maker(problem, tensors);
  }
};

/// The libraries that were found when this program was built.
inline std::vector<Library>& libraries() {
  static std::vector<Library> all;
  return all;
}

/// A file *_peer.cpp holds one static object of this type; leaving the file out leaves the library out.
struct Registration {
  explicit Registration(Library library) {
    auto& all = libraries();
    const auto after = std::upper_bound(all.begin(), all.end(), library.order,
                                        [](int order, const Library& other) { return order < other.order; });
    all.insert(after, std::move(library));
  }
};

}  // namespace compare
