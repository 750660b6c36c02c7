#include <dlib/cuda/cpu_dlib.h>
#include <dlib/revision.h>

#include "peer.hpp"

namespace compare {
namespace {

/// dlib works on tensors of its own, on one thread, and adds to dx.
class DlibPeer : public Peer<float> {
 public:
  DlibPeer(const Problem& problem, const Tensors<float>& tensors) : size_(problem.size()), tensors_(tensors) {
    for (dlib::resizable_tensor* tensor : {&x_, &dy_, &dx_}) {
      tensor->set_size(problem.dims[0], problem.channels(), problem.inner(), 1);
    }
    std::copy_n(tensors.x, size_, x_.host());
    std::copy_n(tensors.dy, size_, dy_.host());
    dx_ = 0;
    fill(gamma_, tensors.gamma, problem.channels());
    fill(beta_, tensors.beta, problem.channels());
    fill(running_mean_, tensors.running_mean, problem.channels());
    fill(running_var_, tensors.running_var, problem.channels());
    trained_mean_ = running_mean_;
    trained_var_ = running_var_;
    for (dlib::resizable_tensor* values : {&mean_, &inv_std_, &gamma_gradient_, &beta_gradient_}) {
      values->copy_size(gamma_);
    }
  }

  void run(Pass pass) override {
    namespace cpu = dlib::cpu;
    switch (pass) {
      case Pass::training:
        return cpu::batch_normalize_conv(epsilon, y_, mean_, inv_std_, momentum, trained_mean_, trained_var_, x_,
                                         gamma_, beta_);
      case Pass::inference:
        return cpu::batch_normalize_conv_inference(epsilon, y_, x_, gamma_, beta_, running_mean_, running_var_);
      case Pass::backward:
        return cpu::batch_normalize_conv_gradient(epsilon, dy_, mean_, inv_std_, x_, gamma_, dx_, gamma_gradient_,
                                                  beta_gradient_);
    }
  }

  void fetch(Pass pass) override {
    if (pass == Pass::backward) {
      std::copy_n(dx_.host(), size_, tensors_.dx);
    } else {
      std::copy_n(y_.host(), size_, tensors_.y);
    }
  }

 private:
  static void fill(dlib::resizable_tensor& tensor, const float* values, Index channels) {
    tensor.set_size(1, channels);
    std::copy_n(values, channels, tensor.host());
  }

  Index size_;
  Tensors<float> tensors_;
  dlib::resizable_tensor x_, dy_, y_, dx_;
  dlib::resizable_tensor gamma_, beta_, running_mean_, running_var_, trained_mean_, trained_var_;
  dlib::resizable_tensor mean_, inv_std_, gamma_gradient_, beta_gradient_;
};

std::unique_ptr<Peer<float>> make(const Problem& problem, const Tensors<float>& tensors) {
  constexpr Index largest_size = Index(1) << 27;  // it doubles the memory
  const bool can = problem.layout != Layout::nhwc && problem.threads == 1 && problem.dims[0] > 1;
  if (!can || problem.size() > largest_size) return nullptr;
  return std::make_unique<DlibPeer>(problem, tensors);
}

std::string version() { return std::to_string(DLIB_MAJOR_VERSION) + "." + std::to_string(DLIB_MINOR_VERSION); }

const Registration registration({"dlib", version(), Role::competitor, 25, make, nullptr});

}  // namespace
}  // namespace compare
