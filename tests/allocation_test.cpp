// After the first call with a shape, nothing is allocated. Counts every allocation of the calling thread.
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "sanitizers.hpp"
#include "step.hpp"

namespace {

thread_local long allocations = 0;

}  // namespace

#if defined(BATCHNORM_TEST_ADDRESS_SANITIZER) || defined(BATCHNORM_TEST_THREAD_SANITIZER)

// A sanitizer brings its own malloc, and hooks into it.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                                         void (*on_free)(const volatile void*));

namespace {

[[maybe_unused]] const int hooks_installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { ++allocations; }, [](const volatile void*) {});

}  // namespace

#else

// Operator new calls these too. glibc's own stand behind them.
extern "C" {

void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}

void* calloc(std::size_t count, std::size_t size) {
  ++allocations;
  return __libc_calloc(count, size);
}

void* realloc(void* memory, std::size_t size) {
  ++allocations;
  return __libc_realloc(memory, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}

int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  ++allocations;
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}

}  // extern "C"

#endif

namespace batchnorm::test {
namespace {

template <class F>
long allocations_in(const F& f) {
  const long before = allocations;
  f();
  return allocations - before;
}

/// A compiler may leave out an allocation whose address goes nowhere.
const void* volatile seen;

TEST(Allocation, IsCounted) {
  EXPECT_GT(allocations_in([] { seen = Eigen::VectorXf(100).data(); }), 0);
  EXPECT_GT(allocations_in([] { seen = std::vector<int>(100).data(); }), 0);
  EXPECT_GT(allocations_in([] { seen = Eigen::Tensor<float, 2>(3, 4).data(); }), 0);
  struct alignas(64) Line {
    char bytes[64];
  };
  EXPECT_GT(allocations_in([] { seen = std::make_unique<Line>().get(); }), 0);
}

template <class Scalar>
void expect_no_allocation_after_the_first(const Layout& layout, const Options& options) {
  SCOPED_TRACE(text(layout));
  using Tensor = Eigen::Tensor<Scalar, 3, Eigen::RowMajor>;
  const auto p = random_problem<Scalar>(layout);
  const Tensor x = tensor<3, Eigen::RowMajor>(p.x, layout), dy = tensor<3, Eigen::RowMajor>(p.dy, layout);
  Tensor y, dx;
  BatchNorm<Scalar> layer(layout.channels(), options);
  const auto step = [&] {
    layer.train();
    layer.zero_gradients();
    layer.forward(x, y);
    layer.backward(x, dy, dx);
    layer.infer(x, y);
    layer.eval();
    layer.forward(x, y);
    layer.backward(x, dy, dx);
  };
  EXPECT_GT(allocations_in(step), 0);
  EXPECT_EQ(allocations_in(step), 0);
  EXPECT_EQ(allocations_in([&] { layer.gamma() -= Scalar(0.1) * layer.gamma_gradient(); }), 0);
}

std::vector<Layout> layouts() {
  return {{{100, 17, 1}, Order::row_major, 1},
          {{3, 17, 49}, Order::row_major, 1},
          {{1, 2, 100000}, Order::row_major, 1},
          {{30000, 3, 1}, Order::row_major, 1},
          {{300, 64, 9}, Order::row_major, 1}};
}

TEST(Allocation, NoneAfterTheFirstStep) {
  for (const Layout& layout : layouts()) {
    for_each_target([&] {
      expect_no_allocation_after_the_first<float>(layout, {});
      expect_no_allocation_after_the_first<double>(layout, {.affine = Affine::none});
      expect_no_allocation_after_the_first<float>(layout, {.average = none()});
    });
  }
}

TEST(Allocation, NoneInFusedAndWeightedSteps) {
  for (const Layout& layout : layouts()) {
    SCOPED_TRACE(text(layout));
    using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
    const auto p = random_problem<float>(layout);
    const Tensor x = tensor<3, Eigen::RowMajor>(p.x, layout), dy = tensor<3, Eigen::RowMajor>(p.dy, layout);
    Tensor y, dx, dz, weights(layout.dim(0), 1, layout.dim(2));
    weights.setConstant(0.5f);
    BatchNorm<float, LeakyRelu> layer(layout.channels());
    const auto step = [&] {
      layer.forward(x, y);
      layer.backward_parameters(x, dy);
      layer.backward_from_output(y, dy, dx);
      layer.forward_add(x, dy, y);
      layer.backward_add(x, dy, dx, dz);
      layer.forward_weighted(x, weights, y);
      layer.backward_weighted(x, weights, dy, dx);
    };
    EXPECT_GT(allocations_in(step), 0);
    EXPECT_EQ(allocations_in(step), 0);
  }
}

TEST(Allocation, NoneInThePhasesWithAWorkspace) {
  for (const Layout& layout : layouts()) {
    SCOPED_TRACE(text(layout));
    using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
    const auto p = random_problem<float>(layout);
    const Tensor x = tensor<3, Eigen::RowMajor>(p.x, layout), dy = tensor<3, Eigen::RowMajor>(p.dy, layout);
    Tensor y, dx;
    Moments moments(layout.channels());
    GradientSums sums(layout.channels());
    Workspace<float> workspace;
    const auto step = [&] {
      collect_moments(x, moments, {}, &workspace);
      normalize(x, moments, p.gamma, p.beta, y, {}, &workspace);
      collect_gradients(x, dy, moments, sums, {}, &workspace);
      input_gradient(x, dy, moments, p.gamma, sums, dx, {}, &workspace);
    };
    EXPECT_GT(allocations_in(step), 0);
    EXPECT_EQ(allocations_in(step), 0);
  }
}

TEST(Allocation, NoneInSecondDerivativesWithAWorkspace) {
  for (const Layout& layout : layouts()) {
    SCOPED_TRACE(text(layout));
    using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
    const auto p = random_problem<float>(layout);
    const Tensor x = tensor<3, Eigen::RowMajor>(p.x, layout), dy = tensor<3, Eigen::RowMajor>(p.dy, layout);
    Tensor ty, gx, gdy;
    Eigen::VectorXf ggamma;
    Moments moments;
    collect_moments(x, moments);
    Workspace<float> workspace;
    const auto step = [&] {
      const Direction direction{dy, p.gamma, p.beta};
      for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
        jvp(x, moments, p.gamma, direction, ty, {}, statistics, &workspace);
        double_backward(x, dy, moments, p.gamma, direction, SecondGradients{gx, gdy, ggamma}, {}, statistics,
                        &workspace);
      }
    };
    EXPECT_GT(allocations_in(step), 0);
    EXPECT_EQ(allocations_in(step), 0);
  }
}

}  // namespace
}  // namespace batchnorm::test
