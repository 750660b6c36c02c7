#include "../ceilings.hpp"
#include "peer.hpp"

namespace compare {
namespace {

using ceilings::Access;
using ceilings::Arithmetic;

/// The beginning of the cache line that a tensor begins in: the memory of each begins with a page.
template <class T>
T* line_of(T* tensor) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor);
  return reinterpret_cast<T*>(address - address % ceilings::line_bytes);
}

template <class T>
class CeilingPeer : public Peer<T> {
 public:
  CeilingPeer(Access access, Arithmetic arithmetic, int threads, const Problem& problem, const Tensors<T>& tensors)
      : access_(access),
        arithmetic_(arithmetic),
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
          return ceilings::training(access_, arithmetic_, ceilings::part_of(forward_, k, team_.threads()));
        case Pass::inference:
          return ceilings::inference(access_, ceilings::part_of(forward_, k, team_.threads()));
        case Pass::backward:
          return ceilings::backward(access_, arithmetic_, ceilings::part_of(backward_, k, team_.threads()));
      }
    });
  }

 private:
  Access access_;
  Arithmetic arithmetic_;
  ceilings::Arrays<T> forward_, backward_;
  std::vector<T> sums_;
  ceilings::Team team_;
};

template <class T, Access access, Arithmetic arithmetic>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  return std::make_unique<CeilingPeer<T>>(access, arithmetic, problem.threads, problem, tensors);
}

/// Small tensors are done before a second thread has woken up.
template <class T, Arithmetic arithmetic>
std::unique_ptr<Peer<T>> make_one_thread(const Problem& problem, const Tensors<T>& tensors) {
  constexpr std::size_t largest_bytes = std::size_t(1) << 20;
  if (problem.threads == 1 || static_cast<std::size_t>(problem.size()) * sizeof(T) > largest_bytes) return nullptr;
  return std::make_unique<CeilingPeer<T>>(Access::plain, arithmetic, 1, problem, tensors);
}

/// Each kind of access, and plain stores on one thread.
template <Arithmetic arithmetic>
struct Ceilings {
  Registration plain, streaming, prefetched, one_thread;

  Ceilings(Role role, const std::string& suffix, int order)
      : plain({"plain stores" + suffix, "", role, order, make<float, Access::plain, arithmetic>,
               make<double, Access::plain, arithmetic>}),
        streaming({"streaming stores" + suffix, "", role, order + 1, make<float, Access::streaming, arithmetic>,
                   make<double, Access::streaming, arithmetic>}),
        prefetched({"prefetched" + suffix, "", role, order + 2, make<float, Access::prefetched, arithmetic>,
                    make<double, Access::prefetched, arithmetic>}),
        one_thread({"plain stores, one thread" + suffix, "", role, order + 3, make_one_thread<float, arithmetic>,
                    make_one_thread<double, arithmetic>}) {}
};

const Ceilings<Arithmetic::least> of_traffic(Role::ceiling, "", 1);
const Ceilings<Arithmetic::of_sums> with_sums(Role::ceiling_with_sums, ", with sums", 5);

}  // namespace
}  // namespace compare
