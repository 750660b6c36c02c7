#include <cmath>

#include "peer.hpp"

namespace compare {
namespace {

/// Inference of one value per channel, as one would write it by hand: what a call of any library costs beyond this is
/// overhead.
template <class T>
class LoopPeer : public Peer<T> {
 public:
  LoopPeer(Index channels, const Tensors<T>& tensors) : channels_(channels), tensors_(tensors) {}

  void run(Pass) override {
    const auto& [x, dy, y, dx, gamma, beta, mean, var] = tensors_;
    for (Index c = 0; c < channels_; ++c) {
      y[c] = (x[c] - mean[c]) / std::sqrt(var[c] + static_cast<T>(epsilon)) * gamma[c] + beta[c];
    }
  }

 private:
  Index channels_;
  Tensors<T> tensors_;
};

template <class T>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  if (problem.values_per_channel() > 1 || problem.threads > 1) return nullptr;
  return std::make_unique<LoopPeer<T>>(problem.channels(), tensors);
}

const Registration registration({"hand-written loop", "", Role::reference, 40, make<float>, make<double>});

}  // namespace
}  // namespace compare
