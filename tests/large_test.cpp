// Tensors beyond the caches, and beyond 2^31 elements.
#include "sanitizers.hpp"
#include "step.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace batchnorm::test {
namespace {

using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
using Map = Eigen::TensorMap<Tensor>;

/// Memory for a tensor at any alignment, with a margin that must stay as it is.
class Framed {
 public:
  Framed(const Flat<float>& values, Index offset)
      : memory_(Flat<float>::Constant(values.size() + 2 * margin, -77)), offset_(margin + offset) {
    memory_.segment(offset_, values.size()) = values;
  }

  Map map(const Layout& layout) { return Map(memory_.data() + offset_, layout.dim(0), layout.dim(1), layout.dim(2)); }
  bool holds(const Flat<float>& values) const {
    const Index end = offset_ + values.size();
    return (memory_.segment(offset_, values.size()) == values).all() && (memory_.head(offset_) == -77).all() &&
           (memory_.tail(memory_.size() - end) == -77).all();
  }

 private:
  static constexpr Index margin = 32;
  Flat<float> memory_;
  Index offset_;
};

/// Tensors so large that kernels ask for their memory in advance.
TEST(Large, SameBitsAtAnyAlignment) {
  for (const Layout& layout : {Layout{{100001, 17, 1}, Order::row_major, 1},
                               {{3, 7, 80001}, Order::row_major, 1},
                               {{90, 66, 289}, Order::row_major, 1},
                               {{26000, 64, 1}, Order::row_major, 1}}) {
    SCOPED_TRACE(text(layout));
    ASSERT_GE(layout.size() * static_cast<Index>(sizeof(float)), detail::min_prefetch_bytes);
    const auto p = random_problem<float>(layout);
    const Flat<float> untouched = Flat<float>::Zero(p.x.size());
    expect_matches_oracle(p, run_step(p));
    for_each_target([&] {
      const Step<float> expected = run_step(p);
      Framed x(p.x, 1), dy(p.dy, 3), y(untouched, 13), dx(untouched, 26);
      BatchNorm<float> layer = layer_of(p);
      layer.forward(x.map(layout), y.map(layout));
      layer.backward(x.map(layout), dy.map(layout), dx.map(layout));
      EXPECT_TRUE(y.holds(expected.y));
      EXPECT_TRUE(dx.holds(expected.dx));
    });
  }
}

// ThreadSanitizer would need several times this memory for its own.
#if defined(__linux__) && !defined(BATCHNORM_TEST_THREAD_SANITIZER)

/// One stretch of memory, seen again and again in a range of addresses far larger than itself.
class RepeatedMemory {
 public:
  RepeatedMemory(Index values, Index repetitions)
      : bytes_(static_cast<std::size_t>(values) * sizeof(float)), repetitions_(static_cast<std::size_t>(repetitions)) {
    const int file = memfd_create("repeated", 0);
    if (ftruncate(file, static_cast<off_t>(bytes_)) != 0) ADD_FAILURE() << "no memory";
    void* range = mmap(nullptr, bytes_ * repetitions_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    begin_ = static_cast<char*>(range);
    for (std::size_t k = 0; k < repetitions_; ++k)
      mmap(begin_ + k * bytes_, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    close(file);
  }
  ~RepeatedMemory() { munmap(begin_, bytes_ * repetitions_); }
  RepeatedMemory(const RepeatedMemory&) = delete;
  RepeatedMemory& operator=(const RepeatedMemory&) = delete;

  float* data() { return reinterpret_cast<float*>(begin_); }

 private:
  std::size_t bytes_, repetitions_;
  char* begin_;
};

// Tensors of 2^31 + 2^20 elements, of which every 2^20 are the same.
constexpr Index period = Index(1) << 20, repetitions = (Index(1) << 11) + 1;

void expect_moments_of_one_period(const Moments& moments, const Layout& layout, const oracle::Statistics& expected) {
  EXPECT_EQ(moments.count, static_cast<double>(layout.count() * repetitions));
  EXPECT_LE(error(moments.mean, mean_of(expected)), tolerance<float>(Quantity::batch_statistic));
  EXPECT_LE(error(moments.var(), var_of(expected)), tolerance<float>(Quantity::batch_statistic));
}

TEST(Large, MoreThanTwoToThe31ElementsInRows) {
  const Layout layout{{period / 16, 16, 1}, Order::row_major, 1};
  const auto p = random_problem<float>(layout);
  RepeatedMemory x_memory(period, repetitions), y_memory(period, repetitions);
  Flat<float>::Map(x_memory.data(), period) = p.x;
  const Map x(x_memory.data(), layout.dim(0) * repetitions, 16, 1);
  Moments moments(16);
  collect_moments(x, moments);
  normalize(x, moments, p.gamma, p.beta, Map(y_memory.data(), x.dimensions()));

  const Values real_x = p.x.cast<Real>(), gamma = p.gamma.cast<Real>(), beta = p.beta.cast<Real>();
  const auto batch = oracle::statistics(layout, real_x);
  expect_moments_of_one_period(moments, layout, batch);
  const auto y = oracle::forward(layout, real_x, batch, gamma, beta, static_cast<Real>(p.epsilon));
  EXPECT_LE(error(Flat<float>::Map(y_memory.data(), period), y), tolerance<float>(Quantity::tensor));
}

TEST(Large, MoreThanTwoToThe31ElementsInOneRun) {
  const Layout layout{{1, 1, period}, Order::row_major, 1};
  const auto p = random_problem<float>(layout);
  RepeatedMemory memory(period, repetitions);
  Flat<float>::Map(memory.data(), period) = p.x;
  Moments moments(1);
  collect_moments(Map(memory.data(), 1, 1, period * repetitions), moments);
  expect_moments_of_one_period(moments, layout, oracle::statistics(layout, p.x.cast<Real>()));
}

#endif

}  // namespace
}  // namespace batchnorm::test
