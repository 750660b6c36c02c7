#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/api/include/torch/version.h>

#include <cstring>
#include <utility>

#include "openmp.hpp"
#include "peer.hpp"

namespace compare {
namespace {

/// libtorch returns new tensors: on the CPU it cannot write into given ones. This allocator hands it the given memory
/// as a new one's, so that it too works on memory allocated once.
class LendingAllocator : public c10::Allocator {
 public:
  /// All allocations of this size get this memory: backward in version 1.13 allocates its result twice and drops the
  /// first one untouched. Whether that was safe shows when results are compared.
  void lend(void* memory, std::size_t bytes) {
    memory_ = memory;
    bytes_ = bytes;
  }
  void end_loan() { memory_ = nullptr; }

  c10::DataPtr allocate(std::size_t bytes) const override {
    if (memory_ == nullptr || bytes != bytes_) return owner_->allocate(bytes);
    return {memory_, c10::Device(c10::DeviceType::CPU)};
  }

 private:
  c10::Allocator* owner_ = c10::GetDefaultCPUAllocator();
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

LendingAllocator& allocator() {
  static LendingAllocator* const instance = [] {
    auto* const made = new LendingAllocator;  // libtorch may free through it when the process ends
    constexpr std::uint8_t high_priority = 255;
    c10::SetCPUAllocator(made, high_priority);
    return made;
  }();
  return *instance;
}

template <class T>
at::Tensor tensor_of(const T* data, at::IntArrayRef dims, at::IntArrayRef strides) {
  return at::from_blob(const_cast<T*>(data), dims, strides, at::CppTypeToScalarType<T>::value);
}

/// Strides of N, C and the rest, in the order that libtorch names them whatever the layout.
Dimensions strides_of(const Problem& problem) {
  const Dimensions dims = problem.memory_dims();
  Dimensions strides(dims.size(), 1);
  for (std::size_t k = dims.size() - 1; k-- > 0;) strides[k] = strides[k + 1] * dims[k + 1];
  if (problem.layout == Layout::nhwc) {
    strides.insert(strides.begin() + 1, strides.back());
    strides.pop_back();
  }
  return strides;
}

enum class Output { lent, its_own };

template <class T, Output output>
class LibtorchPeer : public Peer<T> {
 public:
  LibtorchPeer(const Problem& problem, const Tensors<T>& tensors)
      // Where the result is as small as an array of one value per channel, those would be lent the same memory.
      : lends_(output == Output::lent && problem.values_per_channel() > 1),
        bytes_(static_cast<std::size_t>(problem.size()) * sizeof(T)),
        tensors_(tensors),
        x_(tensor_of(tensors.x, problem.dims, strides_of(problem))),
        dy_(tensor_of(tensors.dy, problem.dims, strides_of(problem))),
        gamma_(tensor_of(tensors.gamma, {problem.channels()}, {1})),
        beta_(tensor_of(tensors.beta, {problem.channels()}, {1})),
        mean_(tensor_of(tensors.running_mean, {problem.channels()}, {1})),
        var_(tensor_of(tensors.running_var, {problem.channels()}, {1})),
        trained_mean_(mean_.clone()),
        trained_var_(var_.clone()) {
    at::set_num_threads(problem.threads);
    allocator();
  }

  void run(Pass pass) override {
    const c10::InferenceMode no_gradient_recording;
    result_.reset();  // freed first, as by a program that has used it
    if (lends_) allocator().lend(pass == Pass::backward ? tensors_.dx : tensors_.y, bytes_);
    switch (pass) {
      case Pass::training:
        train();
        break;
      case Pass::inference:
        infer();
        break;
      case Pass::backward:
        differentiate();
        break;
    }
    allocator().end_loan();
  }

  void fetch(Pass pass) override {
    if (!lends_) {
      std::memcpy(pass == Pass::backward ? tensors_.dx : tensors_.y, result_.data_ptr(), bytes_);
    }
  }

  void rest() override { end_openmp_threads(); }

 private:
  void train() {
    std::tie(result_, saved_mean_, saved_inv_std_) =
        at::native_batch_norm(x_, gamma_, beta_, trained_mean_, trained_var_, true, momentum, epsilon);
  }

  void infer() {
    result_ = std::get<0>(at::native_batch_norm(x_, gamma_, beta_, mean_, var_, false, momentum, epsilon));
  }

  void differentiate() {
    result_ = std::get<0>(at::native_batch_norm_backward(dy_, x_, gamma_, trained_mean_, trained_var_, saved_mean_,
                                                         saved_inv_std_, true, epsilon, {true, true, true}));
  }

  bool lends_;
  std::size_t bytes_;
  Tensors<T> tensors_;
  at::Tensor x_, dy_, gamma_, beta_, mean_, var_, trained_mean_, trained_var_;
  at::Tensor result_, saved_mean_, saved_inv_std_;
};

template <class T, Output output>
std::unique_ptr<Peer<T>> make(const Problem& problem, const Tensors<T>& tensors) {
  return std::make_unique<LibtorchPeer<T, output>>(problem, tensors);
}

const Registration lent({"libtorch", TORCH_VERSION, Role::competitor, 20, make<float, Output::lent>,
                         make<double, Output::lent>});
const Registration its_own({"libtorch (own output)", "", Role::variant, 21, make<float, Output::its_own>,
                            make<double, Output::its_own>});

}  // namespace
}  // namespace compare
