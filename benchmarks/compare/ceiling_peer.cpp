#include "../ceilings.hpp"
#include "peer.hpp"

namespace compare {
namespace {

using ceilings::Stores;

template <class T>
class CeilingPeer : public Peer<T> {
 public:
  CeilingPeer(Stores stores, int threads, const Problem& problem, const Tensors<T>& tensors)
      : stores_(stores),
        forward_{tensors.x, tensors.dy, tensors.y, problem.size(), nullptr},
        backward_{tensors.x, tensors.dy, tensors.dx, problem.size(), nullptr},
        sums_(static_cast<std::size_t>(threads * ceilings::line_bytes)),
        team_(threads) {
    forward_.sum = backward_.sum = sums_.data();
  }

  void run(Pass pass) override {
    team_.run([&](int k) {
      switch (pass) {
        case Pass::training:
          return ceilings::training(stores_, ceilings::part_of(forward_, k, team_.threads()));
        case Pass::inference:
          return ceilings::inference(stores_, ceilings::part_of(forward_, k, team_.threads()));
        case Pass::backward:
          return ceilings::backward(stores_, ceilings::part_of(backward_, k, team_.threads()));
      }
    });
  }

 private:
  Stores stores_;
  ceilings::Arrays<T> forward_, backward_;
  std::vector<T> sums_;
  ceilings::Team team_;
};

template <class T, Stores stores>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  return std::make_unique<CeilingPeer<T>>(stores, problem.threads, problem, tensors);
}

/// Small tensors are done before a second thread has woken up.
template <class T>
std::unique_ptr<Peer<T>> make_one_thread(const Problem& problem, const Tensors<T>& tensors) {
  constexpr std::size_t largest_bytes = std::size_t(1) << 20;
  if (problem.threads == 1 || static_cast<std::size_t>(problem.size()) * sizeof(T) > largest_bytes) return nullptr;
  return std::make_unique<CeilingPeer<T>>(Stores::plain, 1, problem, tensors);
}

const Registration plain({"plain stores", "", Role::ceiling, 1, make<float, Stores::plain>,
                          make<double, Stores::plain>});
const Registration streaming({"streaming stores", "", Role::ceiling, 2, make<float, Stores::streaming>,
                              make<double, Stores::streaming>});
const Registration one_thread({"plain stores, one thread", "", Role::ceiling, 3, make_one_thread<float>,
                               make_one_thread<double>});

}  // namespace
}  // namespace compare
