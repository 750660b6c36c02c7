// Tensors anywhere in memory, within the caches and beyond, and of more than 2^31 elements.
#include "sanitizers.hpp"
#include "step.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace batchnorm::test {
namespace {

template <class Scalar>
using Map = Eigen::TensorMap<Eigen::Tensor<Scalar, 3, Eigen::RowMajor>>;

/// Memory for a tensor `offset` values behind a cache line's beginning, with a margin that must stay as it is.
template <class Scalar>
class Framed {
 public:
  Framed(const Flat<Scalar>& values, Index offset)
      : memory_(Flat<Scalar>::Constant(values.size() + 3 * margin, frame)), size_(values.size()) {
    constexpr auto line = std::uintptr_t(64);
    const std::uintptr_t begun = reinterpret_cast<std::uintptr_t>(memory_.data()) % line;
    offset_ = static_cast<Index>((line - begun) / sizeof(Scalar)) + offset;
    memory_.segment(offset_, values.size()) = values;
  }

  Map<Scalar> map(const Layout& layout) {
    return Map<Scalar>(memory_.data() + offset_, layout.dim(0), layout.dim(1), layout.dim(2));
  }
  Flat<Scalar> values() const { return memory_.segment(offset_, size_); }
  bool holds(const Flat<Scalar>& values) const {
    const Index end = offset_ + values.size();
    return (memory_.segment(offset_, values.size()) == values).all() && (memory_.head(offset_) == frame).all() &&
           (memory_.tail(memory_.size() - end) == frame).all();
  }

 private:
  static constexpr Index margin = 32;
  static inline const Scalar frame = Scalar(-77);
  Flat<Scalar> memory_;
  Index offset_, size_;
};

/// As it is, but outputs of any size go past the caches, or none.
detail::MemoryAccess streaming_access(bool streams, bool streams_two = true) {
  detail::MemoryAccess access = detail::memory_access();
  access.max_kept_bytes = access.max_kept_alone_bytes = streams ? 0 : std::numeric_limits<Index>::max();
  access.streams_two = streams_two;
  return access;
}

template <class Scalar>
void expect_same_bits_at_any_alignment(const Problem<Scalar>& p) {
  const Layout& layout = p.layout;
  const Flat<Scalar> untouched = Flat<Scalar>::Zero(p.x.size());
  for_each_target([&] {
    const Step<Scalar> expected = run_step(p);
    for (const bool streams : {false, true}) {
      SCOPED_TRACE(streams ? "past the caches" : "through the caches");
      const AccessGuard guard(streaming_access(streams));
      for (const Index offset : {0, 1}) {
        SCOPED_TRACE(offset);
        Framed<Scalar> x(p.x, offset), dy(p.dy, 3 * offset), y(untouched, 13 * offset), dx(untouched, 26 * offset);
        BatchNorm<Scalar> layer = layer_of(p);
        layer.forward(x.map(layout), y.map(layout));
        layer.backward(x.map(layout), dy.map(layout), dx.map(layout));
        EXPECT_TRUE(y.holds(expected.y));
        EXPECT_TRUE(dx.holds(expected.dx));
        layer.forward(x.map(layout), x.map(layout));
        EXPECT_TRUE(x.holds(expected.y));
      }
    }
  });
}

template <class Scalar>
void expect_same_bits_beyond_the_caches(const Problem<Scalar>& p) {
  ASSERT_GE(p.layout.size() * static_cast<Index>(sizeof(ComputeOf<Scalar>)), detail::min_prefetch_bytes);
  expect_same_bits_at_any_alignment(p);
}

/// The outputs of a step with a residual, somewhere in memory.
template <class Scalar>
struct ResidualStep {
  Framed<Scalar> y, dx, dz;

  ResidualStep(const Problem<Scalar>& p, Index offset)
      : y(p.x, 13 * offset), dx(p.x, 26 * offset), dz(p.x, 7 * offset) {
    const Layout& layout = p.layout;
    Framed<Scalar> x(p.x, offset), dy(p.dy, 3 * offset);
    BatchNorm<Scalar, Relu> layer(layout.channels(), {.epsilon = p.epsilon, .axis = layout.axis});
    layer.gamma() = p.gamma;
    layer.beta() = p.beta;
    layer.forward_add(x.map(layout), dy.map(layout), y.map(layout));
    layer.backward_add(x.map(layout), dy.map(layout), dx.map(layout), dz.map(layout));
  }
};

template <class Scalar>
void expect_same_residual_step_at_any_alignment(const Problem<Scalar>& p) {
  const ResidualStep<Scalar> expected(p, 0);
  for (const bool streams : {false, true}) {
    SCOPED_TRACE(streams ? "past the caches" : "through the caches");
    const AccessGuard guard(streaming_access(streams));
    const ResidualStep<Scalar> step(p, 1);
    EXPECT_TRUE(step.y.holds(expected.y.values()));
    EXPECT_TRUE(step.dx.holds(expected.dx.values()));
    EXPECT_TRUE(step.dz.holds(expected.dz.values()));
  }
}

/// Tensors so large that kernels ask for their memory in advance.
TEST(Large, SameBitsAtAnyAlignment) {
  for (const Layout& layout : {Layout{{100001, 17, 1}, Order::row_major, 1},
                               {{3, 7, 80001}, Order::row_major, 1},
                               {{90, 66, 289}, Order::row_major, 1},
                               {{26000, 64, 1}, Order::row_major, 1},
                               {{4001, 400, 1}, Order::row_major, 1},
                               {{700, 2311, 1}, Order::row_major, 1}}) {
    SCOPED_TRACE(text(layout));
    const auto p = random_problem<float>(layout);
    expect_matches_oracle(p, run_step(p));
    expect_same_bits_beyond_the_caches(p);
    for_each_target([&] { expect_same_residual_step_at_any_alignment(p); });
  }
}

TEST(Large, SameBitsAtAnyAlignmentOfOtherScalars) {
  for (const Layout& layout : {Layout{{3, 7, 80001}, Order::row_major, 1}, {{700, 2311, 1}, Order::row_major, 1}}) {
    SCOPED_TRACE(text(layout));
    expect_same_bits_beyond_the_caches(random_problem<double>(layout));
    expect_same_bits_beyond_the_caches(random_problem<Eigen::bfloat16>(layout));
    expect_same_residual_step_at_any_alignment(random_problem<double>(layout));
    expect_same_residual_step_at_any_alignment(random_problem<Eigen::bfloat16>(layout));
    expect_same_bits_beyond_the_caches(random_problem<Eigen::half>(layout));
  }
}

/// Rows of less than a page, in strips and in bands, folded and whole, with and without ends: sums ask for their
/// memory in advance, however small the tensor.
template <class Scalar>
void expect_right_where_sums_ask() {
  detail::MemoryAccess access = detail::memory_access();
  access.min_row_bytes = 0;
  const AccessGuard guard(access);
  for (const Layout& layout : {Layout{{50, 3, 1}, Order::row_major, 1},
                               {{37, 24, 1}, Order::row_major, 1},
                               {{300, 61, 1}, Order::row_major, 1},
                               {{129, 96, 1}, Order::row_major, 1},
                               {{1100, 130, 1}, Order::row_major, 1},
                               {{77, 487, 1}, Order::row_major, 1},
                               {{40, 5, 49}, Order::row_major, 1}}) {
    SCOPED_TRACE(text(layout));
    const auto p = random_problem<Scalar>(layout);
    expect_matches_oracle_on_every_target(p);
    expect_same_bits_at_any_alignment(p);
  }
}

TEST(SmallRows, RightWhereSumsAsk) {
  expect_right_where_sums_ask<float>();
  expect_right_where_sums_ask<double>();
  expect_right_where_sums_ask<Eigen::half>();
}

/// Rows of few columns, a multiple of whole vectors, have maps of their own where vectors are aligned.
template <class Scalar>
void expect_same_bits_of_few_columns() {
  for (const Index columns : {8, 16, 32, 64, 96, 256, 288}) {
    for (const Index rows : {2, 8, 9, 50}) {
      const Layout layout{{rows, columns, 1}, Order::row_major, 1};
      SCOPED_TRACE(text(layout));
      const auto p = random_problem<Scalar>(layout);
      expect_same_bits_at_any_alignment(p);
      for_each_target([&] { expect_same_residual_step_at_any_alignment(p); });
    }
  }
}

TEST(FewColumns, SameBitsAtAnyAlignment) {
  expect_same_bits_of_few_columns<float>();
  expect_same_bits_of_few_columns<double>();
  expect_same_bits_of_few_columns<Eigen::bfloat16>();
  expect_same_bits_of_few_columns<Eigen::half>();
}

/// dx over dy or apart from it, beside a dz of 16 bits.
struct NarrowResidualStep {
  Framed<float> dy, dx;
  Framed<Eigen::bfloat16> dz;

  NarrowResidualStep(const Problem<float>& p, bool in_place, Index dx_offset, Index dz_offset)
      : dy(p.dy, dx_offset), dx(p.dy, dx_offset), dz(p.x.cast<Eigen::bfloat16>(), dz_offset) {
    const Layout& layout = p.layout;
    Framed<float> x(p.x, 0), y(p.x, 0);
    BatchNorm<float, Relu> layer(layout.channels(), {.epsilon = p.epsilon, .axis = layout.axis});
    layer.forward_add(x.map(layout), dy.map(layout), y.map(layout));
    layer.backward_add(x.map(layout), (in_place ? dx : dy).map(layout), dx.map(layout), dz.map(layout));
  }
};

TEST(Large, SameBitsOfANarrowOutputThatLiesElsewhere) {
  for (const Layout& layout :
       {Layout{{26000, 64, 1}, Order::row_major, 1}, Layout{{3, 7, 80001}, Order::row_major, 1}}) {
    SCOPED_TRACE(text(layout));
    const auto p = random_problem<float>(layout);
    for_each_target([&] {
      const NarrowResidualStep expected(p, false, 0, 0);
      for (const auto& access : {streaming_access(false), streaming_access(true, false), streaming_access(true)}) {
        SCOPED_TRACE(access.max_kept_bytes == 0 ? access.streams_two ? "both past the caches" : "one past the caches"
                                                : "through the caches");
        const AccessGuard guard(access);
        for (const bool in_place : {false, true}) {
          for (const Index offset : {0, 3, 8}) {
            SCOPED_TRACE(offset);
            const NarrowResidualStep step(p, in_place, 3 * offset, offset);
            EXPECT_TRUE(step.dx.holds(expected.dx.values()));
            EXPECT_TRUE(step.dz.holds(expected.dz.values()));
          }
        }
      }
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
  const Map<float> x(x_memory.data(), layout.dim(0) * repetitions, 16, 1);
  Moments moments(16);
  collect_moments(x, moments);
  normalize(x, moments, p.gamma, p.beta, Map<float>(y_memory.data(), x.dimensions()));

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
  collect_moments(Map<float>(memory.data(), 1, 1, period * repetitions), moments);
  expect_moments_of_one_period(moments, layout, oracle::statistics(layout, p.x.cast<Real>()));
}

#endif

}  // namespace
}  // namespace batchnorm::test
