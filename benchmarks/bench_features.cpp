#include <benchmark/benchmark.h>

#include <batchnorm/batchnorm.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ceilings.hpp"
#include "compare/memory.hpp"
#include "compare/timing.hpp"

// What a feature saves: its time, and in the same run, in turns, that of what it stands for. A fusion stands for its
// parts one after another (the layer without it, and Eigen expressions in place), 16 bits for float, and a backward
// that gives less for the least time that reading and writing take; what stands for nothing is beside the plain pass.
// The counter is the other time over the feature's; with_sums is that of the ceiling whose loops compute the sums;
// of_layer is that of the layer without what a fusion adds, which no fusion can be faster than.

namespace {

using namespace batchnorm;

using Flat = Eigen::Array<float, Eigen::Dynamic, 1>;
using compare::Contestant;

/// Channels on the middle axis; inner is 1 where they come last.
struct Sizes {
  std::string name;
  Index outer, channels, inner;
  Index size() const { return outer * channels * inner; }
};

std::vector<Sizes> all_sizes() {
  return {{"32x64x112x112/NCHW", 32, 64, 112 * 112}, {"32x64x112x112/NHWC", 32 * 112 * 112, 64, 1},
          {"32x64x56x56/NCHW", 32, 64, 56 * 56},     {"32x64x56x56/NHWC", 32 * 56 * 56, 64, 1},
          {"32x128x28x28/NCHW", 32, 128, 28 * 28},   {"32x128x28x28/NHWC", 32 * 28 * 28, 128, 1},
          {"32x256x14x14/NCHW", 32, 256, 14 * 14},   {"32x256x14x14/NHWC", 32 * 14 * 14, 256, 1}};
}

/// Page-aligned tensors of one scalar and size, and layers that have been through a forward.
template <class Scalar>
class Case {
 public:
  using Tensor = Eigen::TensorMap<Eigen::Tensor<Scalar, 3, Eigen::RowMajor>>;

  explicit Case(const Sizes& sizes)
      : memory_(7 * sizes.size()),
        x(next(sizes)),
        z(next(sizes)),
        y(next(sizes)),
        dy(next(sizes)),
        g(next(sizes)),
        dx(next(sizes)),
        dz(next(sizes)),
        layer(sizes.channels),
        relu(sizes.channels),
        add_relu(sizes.channels),
        clipped(sizes.channels) {
    compare::fill_random(memory_.data(), 7 * sizes.size(), 0, 1, 1);
    clipped.forward(x, y);
    relu.forward(x, y);
    add_relu.forward_add(x, z, y);
    layer.forward(x, dx);
  }

  static Eigen::Map<Eigen::Array<Scalar, Eigen::Dynamic, 1>> flat(Tensor& t) { return {t.data(), t.size()}; }

 private:
  compare::Buffer<Scalar> memory_;
  Index used_ = 0;

  Tensor next(const Sizes& s) {
    Scalar* const data = memory_.data() + used_;
    used_ += s.size();
    return Tensor(data, s.outer, s.channels, s.inner);
  }

 public:
  Tensor x, z, y, dy, g, dx, dz;
  BatchNorm<Scalar> layer;
  BatchNorm<Scalar, Relu> relu, add_relu;
  BatchNorm<Scalar, ClippedRelu> clipped;
};

using Call = std::function<void()>;

/// The time of `feature`, and a counter for each other call: its time over the feature's.
void report(benchmark::State& state, const Call& feature, const std::vector<std::pair<const char*, Call>>& others) {
  constexpr double seconds = 0.5;
  const Call nothing = [] {};
  std::vector<Contestant> contestants;
  contestants.emplace_back(feature, nothing);
  for (const auto& other : others) contestants.emplace_back(other.second, nothing);
  compare::interleave(contestants, seconds);
  const double time = contestants[0].median_seconds();
  for (auto _ : state) state.SetIterationTime(time);
  for (std::size_t k = 0; k < others.size(); ++k) {
    state.counters[others[k].first] = contestants[k + 1].median_seconds() / time;
  }
}

void report(benchmark::State& state, const Call& feature, const char* counter, const Call& other) {
  report(state, feature, {{counter, other}});
}

void add_row(const std::string& name, const std::function<void(benchmark::State&)>& row) {
  benchmark::RegisterBenchmark(name.c_str(), row)->UseManualTime()->Iterations(1)->Unit(benchmark::kMicrosecond);
}

// ---- Fusion.

void rectify(Case<float>& c) { Case<float>::flat(c.y) = Case<float>::flat(c.y).max(0.f); }
void add_and_rectify(Case<float>& c) {
  Case<float>::flat(c.y) = (Case<float>::flat(c.y) + Case<float>::flat(c.z)).max(0.f);
}
/// Eigen does not make vectors of a comparison: this is 1 where y is positive (and normal), 0 where it is 0.
void rectify_gradient(Case<float>& c) {
  Case<float>::flat(c.g) = (Case<float>::flat(c.y) * 1e38f).min(1.f) * Case<float>::flat(c.dy);
}
void clip_gradient(Case<float>& c) {
  const auto below_cap = ((6.f - Case<float>::flat(c.y)) * 1e38f).min(1.f);
  Case<float>::flat(c.g) = (Case<float>::flat(c.y) * 1e38f).min(1.f) * below_cap * Case<float>::flat(c.dy);
}

struct Fusion {
  const char* name;
  void (*fused)(Case<float>&);
  void (*layer)(Case<float>&);  // the part that no fusion can save
  void (*rest)(Case<float>&);
  bool rest_first = false;
};

void train(Case<float>& c) { c.layer.forward(c.x, c.y); }
void infer(Case<float>& c) { c.layer.infer(c.x, c.y); }
void differentiate(Case<float>& c) { c.layer.backward(c.x, c.g, c.dx); }

const Fusion fusions[] = {
    {"training+relu", [](Case<float>& c) { c.relu.forward(c.x, c.y); }, train, rectify},
    {"inference+relu", [](Case<float>& c) { c.relu.infer(c.x, c.y); }, infer, rectify},
    {"backward+relu", [](Case<float>& c) { c.relu.backward(c.x, c.dy, c.dx); }, differentiate, rectify_gradient, true},
    {"backward+clipped relu", [](Case<float>& c) { c.clipped.backward(c.x, c.dy, c.dx); }, differentiate, clip_gradient,
     true},
    {"training+add+relu", [](Case<float>& c) { c.add_relu.forward_add(c.x, c.z, c.y); }, train, add_and_rectify},
    {"inference+add+relu", [](Case<float>& c) { c.add_relu.infer_add(c.x, c.z, c.y); }, infer, add_and_rectify},
    {"backward+add+relu", [](Case<float>& c) { c.add_relu.backward_add(c.x, c.dy, c.dx, c.dz); }, differentiate,
     rectify_gradient, true},
};

void add_fusions(const Sizes& sizes) {
  for (const Fusion& fusion : fusions) {
    add_row(std::string(fusion.name) + "/" + sizes.name, [=](benchmark::State& state) {
      Case<float> c(sizes);
      const Call parts = [&] {
        if (fusion.rest_first) fusion.rest(c);
        fusion.layer(c);
        if (!fusion.rest_first) fusion.rest(c);
      };
      report(state, [&] { fusion.fused(c); }, {{"of_parts", parts}, {"of_layer", [&] { fusion.layer(c); }}});
    });
  }
}

// ---- 16 bits.

template <class Scalar>
struct Pass {
  const char* name;
  void (*run)(Case<Scalar>&);
};

template <class Scalar>
std::vector<Pass<Scalar>> passes() {
  return {{"training", [](Case<Scalar>& c) { c.layer.forward(c.x, c.y); }},
          {"inference", [](Case<Scalar>& c) { c.layer.infer(c.x, c.y); }},
          {"backward", [](Case<Scalar>& c) { c.layer.backward(c.x, c.dy, c.dx); }}};
}

template <class Scalar>
void add_16_bit(const Sizes& sizes, const std::string& scalar) {
  for (std::size_t k = 0; k < passes<Scalar>().size(); ++k) {
    add_row(scalar + "/" + passes<Scalar>()[k].name + "/" + sizes.name, [=](benchmark::State& state) {
      Case<Scalar> narrow(sizes);
      Case<float> wide(sizes);
      report(
          state, [&] { passes<Scalar>()[k].run(narrow); }, "float_over_this", [&] { passes<float>()[k].run(wide); });
    });
  }
}

/// A bfloat16 x, a float y and its gradient.
void add_mixed(const Sizes& sizes) {
  add_row("bfloat16 to float/inference/" + sizes.name, [=](benchmark::State& state) {
    Case<Eigen::bfloat16> narrow(sizes);
    Case<float> wide(sizes);
    report(
        state, [&] { narrow.layer.infer(narrow.x, wide.y); }, "float_over_this",
        [&] { wide.layer.infer(wide.x, wide.y); });
  });
  add_row("bfloat16 from float/backward/" + sizes.name, [=](benchmark::State& state) {
    Case<Eigen::bfloat16> narrow(sizes);
    Case<float> wide(sizes);
    report(
        state, [&] { narrow.layer.backward(narrow.x, wide.dy, narrow.dx); }, "float_over_this",
        [&] { wide.layer.backward(wide.x, wide.dy, wide.dx); });
  });
}

// ---- Backward that gives less, beside its ceiling.

void add_parts_of_backward(const Sizes& sizes) {
  const auto arrays_of = [](Case<float>& c, float* sum) {
    return ceilings::Arrays<float>{c.dy.data(), c.x.data(), c.dx.data(), c.x.size(), sum};
  };
  add_row("backward, parameters alone/" + sizes.name, [=](benchmark::State& state) {
    Case<float> c(sizes);
    std::vector<float> sum(static_cast<std::size_t>(ceilings::line_bytes));
    const auto arrays = arrays_of(c, sum.data());
    const auto sums = [&](ceilings::Arithmetic arithmetic) {
      return [&arrays, arithmetic] { ceilings::gradients(ceilings::Access::prefetched, arithmetic, arrays); };
    };
    report(state, [&] { c.layer.backward_parameters(c.x, c.dy); },
           {{"of_ceiling", sums(ceilings::Arithmetic::least)}, {"with_sums", sums(ceilings::Arithmetic::of_sums)}});
  });
  add_row("backward, dx alone, frozen statistics/" + sizes.name, [=](benchmark::State& state) {
    Case<float> c(sizes);
    c.layer.eval();
    c.layer.forward(c.x, c.y);
    const auto arrays = arrays_of(c, nullptr);
    report(
        state, [&] { c.layer.backward(c.x, c.dy, c.dx, {.parameters = ParameterGradients::skip}); }, "of_ceiling",
        [&] { ceilings::inference(ceilings::Access::prefetched, arrays); });
  });
}

// ---- What has no part to stand for, beside the plain pass.

void add_beside_plain(const Sizes& sizes) {
  const auto ones = [](const Sizes& s) {
    Eigen::Tensor<float, 3, Eigen::RowMajor> weights(s.outer, 1, s.inner);
    weights.setConstant(1.f);
    return weights;
  };
  add_row("training, weighted/" + sizes.name, [=](benchmark::State& state) {
    Case<float> c(sizes);
    const auto weights = ones(sizes);
    report(
        state, [&] { c.layer.forward_weighted(c.x, weights, c.y); }, "plain_over_this",
        [&] { c.layer.forward(c.x, c.y); });
  });
  add_row("backward, weighted/" + sizes.name, [=](benchmark::State& state) {
    Case<float> c(sizes);
    const auto weights = ones(sizes);
    BatchNorm<float> weighted(sizes.channels);
    weighted.forward_weighted(c.x, weights, c.y);
    report(
        state, [&] { weighted.backward_weighted(c.x, weights, c.dy, c.dx); }, "plain_over_this",
        [&] { c.layer.backward(c.x, c.dy, c.dx); });
  });
  // In NHWC the slowest axis of these tensors counts more than samples.
  if (sizes.inner > 1) {
    add_row("inference, gamma and beta per sample/" + sizes.name, [=](benchmark::State& state) {
      Case<float> c(sizes);
      const PerSample<float> one_each = PerSample<float>::Ones(sizes.outer, sizes.channels);
      Workspace<float> workspace;
      report(
          state, [&] { normalize_per_sample(c.x, c.layer.moments(), one_each, one_each, c.y, {}, &workspace); },
          "plain_over_this", [&] { c.layer.infer(c.x, c.y); });
    });
  }
  add_row("backward from the output/" + sizes.name, [=](benchmark::State& state) {
    Case<float> c(sizes);
    report(
        state, [&] { c.layer.backward_from_output(c.y, c.dy, c.dx); }, "plain_over_this",
        [&] { c.layer.backward(c.x, c.dy, c.dx); });
  });
  add_row("jvp/" + sizes.name, [=](benchmark::State& state) {
    Case<float> c(sizes);
    Workspace<float> workspace;
    report(
        state,
        [&] {
          jvp(c.x, c.layer.moments(), c.layer.gamma(), Direction{c.dy}, c.g, {}, Statistics::of_batch, &workspace);
        },
        "plain_over_this", [&] { c.layer.backward(c.x, c.dy, c.dx); });
  });
  add_row("double backward/" + sizes.name, [=](benchmark::State& state) {
    Case<float> c(sizes);
    Workspace<float> workspace;
    Eigen::VectorXf gamma;
    report(
        state,
        [&] {
          double_backward(c.x, c.dy, c.layer.moments(), c.layer.gamma(), Direction{c.z},
                          SecondGradients{c.dx, c.dz, gamma}, {}, Statistics::of_batch, &workspace);
        },
        "plain_over_this", [&] { c.layer.backward(c.x, c.dy, c.g); });
  });
}

void add_all_rows() {
  for (const Sizes& sizes : all_sizes()) {
    add_fusions(sizes);
    add_16_bit<Eigen::bfloat16>(sizes, "bfloat16");
    add_16_bit<Eigen::half>(sizes, "half");
    add_mixed(sizes);
    add_parts_of_backward(sizes);
    add_beside_plain(sizes);
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  add_all_rows();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
