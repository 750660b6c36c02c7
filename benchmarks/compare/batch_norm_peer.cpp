#define EIGEN_USE_THREADS
#include <batchnorm/batchnorm.hpp>

#include "peer.hpp"

namespace compare {
namespace {

template <class T, int Rank>
class BatchNormPeer : public Peer<T> {
 public:
  BatchNormPeer(const Problem& problem, const Tensors<T>& tensors)
      : layer_(problem.channels(), {.epsilon = epsilon,
                                    .axis = static_cast<int>(problem.channel_axis()),
                                    .average = batchnorm::new_weight(momentum)}),
        inference_layer_(layer_),
        x_(tensors.x, dimensions(problem)),
        dy_(tensors.dy, dimensions(problem)),
        y_(tensors.y, dimensions(problem)),
        dx_(tensors.dx, dimensions(problem)),
        pool_(std::max(problem.threads - 1, 1)),  // the calling thread works, too
        device_(&pool_, problem.threads) {
    using Values = Eigen::Map<const batchnorm::Vector<T>>;
    for (batchnorm::BatchNorm<T>* layer : {&layer_, &inference_layer_}) {
      layer->gamma() = Values(tensors.gamma, problem.channels());
      layer->beta() = Values(tensors.beta, problem.channels());
    }
    inference_layer_.running_mean() = Values(tensors.running_mean, problem.channels()).template cast<double>();
    inference_layer_.running_var() = Values(tensors.running_var, problem.channels()).template cast<double>();
  }

  void run(Pass pass) override {
    if (device_.numThreads() == 1) {
      run(pass, Eigen::DefaultDevice{});
    } else {
      run(pass, device_);
    }
  }

  std::optional<Index> workspace_bytes(Pass pass) const override {
    return (pass == Pass::inference ? inference_layer_ : layer_).workspace_bytes();
  }

 private:
  using Tensor = Eigen::Tensor<T, Rank, Eigen::RowMajor>;

  static Eigen::DSizes<Eigen::Index, Rank> dimensions(const Problem& problem) {
    const Dimensions dims = problem.memory_dims();
    Eigen::DSizes<Eigen::Index, Rank> result;
    std::copy_n(dims.begin(), Rank, result.begin());
    return result;
  }

  template <class Device>
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

  batchnorm::BatchNorm<T> layer_, inference_layer_;  // two, because training moves the running statistics
  Eigen::TensorMap<const Tensor> x_, dy_;
  Eigen::TensorMap<Tensor> y_, dx_;
  Eigen::ThreadPool pool_;
  Eigen::ThreadPoolDevice device_;
};

template <class T>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  switch (problem.dims.size()) {
    case 2:
      return std::make_unique<BatchNormPeer<T, 2>>(problem, tensors);
    case 4:
      return std::make_unique<BatchNormPeer<T, 4>>(problem, tensors);
    case 5:
      return std::make_unique<BatchNormPeer<T, 5>>(problem, tensors);
    default:
      return nullptr;
  }
}

std::string version() {
  return std::to_string(BATCHNORM_VERSION_MAJOR) + "." + std::to_string(BATCHNORM_VERSION_MINOR) + "." +
         std::to_string(BATCHNORM_VERSION_PATCH) + ", " + batchnorm::name(batchnorm::active_target());
}

const Registration registration({"batchnorm", version(), Role::subject, 0, make<float>, make<double>});

}  // namespace
}  // namespace compare
