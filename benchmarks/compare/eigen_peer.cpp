#define EIGEN_USE_THREADS
#include "../eigen_batch_norm.hpp"
#include "peer.hpp"

namespace compare {
namespace {

template <class T, class Device>
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
  using BatchNorm = eigen_expressions::BatchNorm<T, Device>;

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

template <class T>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  constexpr std::size_t largest_bytes = std::size_t(1) << 29;  // minutes beyond that
  if (static_cast<std::size_t>(problem.size()) * sizeof(T) > largest_bytes) return nullptr;
  if (problem.threads == 1) return std::make_unique<EigenPeer<T, Eigen::DefaultDevice>>(problem, tensors);
  return std::make_unique<EigenPeer<T, Eigen::ThreadPoolDevice>>(problem, tensors);
}

std::string version() {
  return std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

const Registration registration({"Eigen", version(), Role::competitor, 30, make<float>, make<double>});

}  // namespace
}  // namespace compare
