#define EIGEN_USE_THREADS
#include "../eigen_batch_norm.hpp"
#include "peer.hpp"

namespace compare {
namespace {

using eigen_expressions::Spelling;

template <class T, class Device, Spelling spelling>
class EigenPeer : public Peer<T> {
 public:
  EigenPeer(const Problem& problem, const Tensors<T>& tensors)
      : layer_(problem.channels()),
        inference_layer_(problem.channels()),
        x_(tensors.x, problem.outer(), problem.channels(), problem.inner()),
        dy_(tensors.dy, problem.outer(), problem.channels(), problem.inner()),
        y_(tensors.y, problem.outer(), problem.channels(), problem.inner()),
        dx_(tensors.dx, problem.outer(), problem.channels(), problem.inner()),
        pool_(problem.threads) {
    for (BatchNorm* layer : {&layer_, &inference_layer_}) {
      std::copy_n(tensors.gamma, problem.channels(), layer->gamma.data());
      std::copy_n(tensors.beta, problem.channels(), layer->beta.data());
    }
    std::copy_n(tensors.running_mean, problem.channels(), inference_layer_.running_mean.data());
    std::copy_n(tensors.running_var, problem.channels(), inference_layer_.running_var.data());
  }

  void run(Pass pass) override {
    if constexpr (std::is_same_v<Device, Eigen::DefaultDevice>) {
      run(pass, Eigen::DefaultDevice{});
    } else {
      run(pass, Device(&pool_, pool_.NumThreads()));
    }
  }

 private:
  using BatchNorm = eigen_expressions::BatchNorm<T, Device, spelling>;

  void run(Pass pass, const Device& device) {
    switch (pass) {
      case Pass::training:
        return layer_.forward(device, x_, y_);
      case Pass::inference:
        return inference_layer_.infer(device, x_, y_);
      case Pass::backward:
        return layer_.backward(device, x_, dy_, dx_);
    }
  }

  BatchNorm layer_, inference_layer_;  // two, because training moves the running statistics
  typename BatchNorm::Input x_, dy_;
  typename BatchNorm::Output y_, dx_;
  Eigen::ThreadPool pool_;
};

/// What takes minutes is left out.
constexpr Index largest_bytes(Spelling spelling) { return Index(1) << (spelling == Spelling::fastest ? 29 : 25); }

template <class T, Spelling spelling>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  if (problem.size() * static_cast<Index>(sizeof(T)) > largest_bytes(spelling)) return nullptr;
  if (problem.threads == 1) return std::make_unique<EigenPeer<T, Eigen::DefaultDevice, spelling>>(problem, tensors);
  return std::make_unique<EigenPeer<T, Eigen::ThreadPoolDevice, spelling>>(problem, tensors);
}

std::string version() {
  return std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

const Registration fastest({"Eigen", version(), Role::competitor, 30, make<float, Spelling::fastest>,
                            make<double, Spelling::fastest>});
const Registration as_written({"Eigen (as written)", "", Role::variant, 31, make<float, Spelling::as_written>,
                               make<double, Spelling::as_written>});

}  // namespace
}  // namespace compare
