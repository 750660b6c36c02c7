#include "../ceilings.hpp"
#include "peer.hpp"

namespace compare {
namespace {

using ceilings::Access;

/// The beginning of the cache line that a tensor begins in: the memory of each begins with a page.
template <class T>
T* line_of(T* tensor) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor);
  return reinterpret_cast<T*>(address - address % ceilings::line_bytes);
}

template <class T>
class CeilingPeer : public Peer<T> {
 public:
  CeilingPeer(Access access, int threads, const Problem& problem, const Tensors<T>& tensors)
      : access_(access),
        forward_{line_of(tensors.x), line_of(tensors.dy), line_of(tensors.y), problem.size(), nullptr},
        backward_{line_of(tensors.x), line_of(tensors.dy), line_of(tensors.dx), problem.size(), nullptr},
        sums_(static_cast<std::size_t>(threads * ceilings::line_bytes)),
        team_(threads) {
    forward_.sum = backward_.sum = sums_.data();
  }

  void run(Pass pass) override {
    team_.run([&](int k) {
      switch (pass) {
        case Pass::training:
          return ceilings::training(access_, ceilings::part_of(forward_, k, team_.threads()));
        case Pass::inference:
          return ceilings::inference(access_, ceilings::part_of(forward_, k, team_.threads()));
        case Pass::backward:
          return ceilings::backward(access_, ceilings::part_of(backward_, k, team_.threads()));
      }
    });
  }

 private:
  Access access_;
  ceilings::Arrays<T> forward_, backward_;
  std::vector<T> sums_;
  ceilings::Team team_;
};

template <class T, Access access>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  return std::make_unique<CeilingPeer<T>>(access, problem.threads, problem, tensors);
}

/// Small tensors are done before a second thread has woken up.
template <class T>
std::unique_ptr<Peer<T>> make_one_thread(const Problem& problem, const Tensors<T>& tensors) {
  constexpr std::size_t largest_bytes = std::size_t(1) << 20;
  if (problem.threads == 1 || static_cast<std::size_t>(problem.size()) * sizeof(T) > largest_bytes) return nullptr;
  return std::make_unique<CeilingPeer<T>>(Access::plain, 1, problem, tensors);
}

const Registration plain({"plain stores", "", Role::ceiling, 1, make<float, Access::plain>,
                          make<double, Access::plain>});
const Registration streaming({"streaming stores", "", Role::ceiling, 2, make<float, Access::streaming>,
                              make<double, Access::streaming>});
const Registration prefetched({"prefetched", "", Role::ceiling, 3, make<float, Access::prefetched>,
                               make<double, Access::prefetched>});
const Registration one_thread({"plain stores, one thread", "", Role::ceiling, 4, make_one_thread<float>,
                               make_one_thread<double>});

}  // namespace
}  // namespace compare
