#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "openmp.hpp"
#include "peer.hpp"

namespace compare {
namespace {

using dnnl::memory;
using dnnl::normalization_flags;
using dnnl::prop_kind;
using Forward = dnnl::batch_normalization_forward;
using Backward = dnnl::batch_normalization_backward;

memory::desc tensor_desc(const Problem& problem) {
  using Tag = memory::format_tag;
  memory::dims dims(problem.dims.begin(), problem.dims.end());
  const bool channels_last = problem.layout == Layout::nhwc;
  switch (dims.size()) {
    case 2:
      // Images of one pixel: for rank 2 itself oneDNN has only its slow reference code.
      dims.insert(dims.end(), {1, 1});
      return {dims, memory::data_type::f32, Tag::nhwc};
    case 4:
      return {dims, memory::data_type::f32, channels_last ? Tag::nhwc : Tag::nchw};
    default:
      return {dims, memory::data_type::f32, channels_last ? Tag::ndhwc : Tag::ncdhw};
  }
}

class OneDnnPeer : public Peer<float> {
 public:
  OneDnnPeer(const Problem& problem, const Tensors<float>& tensors)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    omp_set_num_threads(problem.threads);  // before the primitives are made: they plan for so many
    const auto affine = normalization_flags::use_scale | normalization_flags::use_shift;
    const memory::desc tensor = tensor_desc(problem);
    const memory::desc channels({problem.channels()}, memory::data_type::f32, memory::format_tag::x);
    const auto given = [&](const memory::desc& desc, const float* data) {
      return memory(desc, engine_, const_cast<float*>(data));
    };
    const memory x = given(tensor, tensors.x), dy = given(tensor, tensors.dy);
    const memory y = given(tensor, tensors.y), dx = given(tensor, tensors.dx);
    const memory gamma = given(channels, tensors.gamma), beta = given(channels, tensors.beta);
    const memory mean(channels, engine_), var(channels, engine_);
    const auto scale = static_cast<float>(epsilon);

    const Forward::primitive_desc training({prop_kind::forward_training, tensor, scale, affine}, engine_);
    training_ = {Forward(training),
                 {{DNNL_ARG_SRC, x},
                  {DNNL_ARG_DST, y},
                  {DNNL_ARG_SCALE, gamma},
                  {DNNL_ARG_SHIFT, beta},
                  {DNNL_ARG_MEAN, mean},
                  {DNNL_ARG_VARIANCE, var}}};

    const Forward::primitive_desc inference(
        {prop_kind::forward_inference, tensor, scale, affine | normalization_flags::use_global_stats}, engine_);
    inference_ = {Forward(inference),
                  {{DNNL_ARG_SRC, x},
                   {DNNL_ARG_DST, y},
                   {DNNL_ARG_SCALE, gamma},
                   {DNNL_ARG_SHIFT, beta},
                   {DNNL_ARG_MEAN, given(channels, tensors.running_mean)},
                   {DNNL_ARG_VARIANCE, given(channels, tensors.running_var)}}};

    const Backward::primitive_desc backward({prop_kind::backward, tensor, tensor, scale, affine}, engine_, training);
    backward_ = {Backward(backward),
                 {{DNNL_ARG_SRC, x},
                  {DNNL_ARG_DIFF_DST, dy},
                  {DNNL_ARG_DIFF_SRC, dx},
                  {DNNL_ARG_SCALE, gamma},
                  {DNNL_ARG_SHIFT, beta},
                  {DNNL_ARG_MEAN, mean},
                  {DNNL_ARG_VARIANCE, var},
                  {DNNL_ARG_DIFF_SCALE, memory(channels, engine_)},
                  {DNNL_ARG_DIFF_SHIFT, memory(channels, engine_)}}};
  }

  void run(Pass pass) override {
    Step& step = pass == Pass::training ? training_ : pass == Pass::inference ? inference_ : backward_;
    step.primitive.execute(stream_, step.arguments);
    stream_.wait();
  }

  void rest() override { end_openmp_threads(); }

 private:
  struct Step {
    dnnl::primitive primitive;
    std::unordered_map<int, memory> arguments;
  };

  dnnl::engine engine_;
  dnnl::stream stream_;
  Step training_, inference_, backward_;
};

std::unique_ptr<Peer<float>> make(const Problem& problem, const Tensors<float>& tensors) {
  return std::make_unique<OneDnnPeer>(problem, tensors);
}

std::string version() {
  const dnnl_version_t* version = dnnl_version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
}

const Registration registration({"oneDNN", version(), Role::competitor, 10, make, nullptr});

}  // namespace
}  // namespace compare
