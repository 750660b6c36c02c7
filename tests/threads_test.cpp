// The same bits for any number of threads.
#define EIGEN_USE_THREADS
#include <atomic>
#include <memory>

#include "step.hpp"

namespace batchnorm::test {
namespace {

/// A thread pool that counts what it is given to do.
class CountingPool : public Eigen::ThreadPoolInterface {
 public:
  explicit CountingPool(int threads) : pool_(threads) {}

  void Schedule(std::function<void()> task) override {
    ++scheduled_;
    pool_.Schedule(std::move(task));
  }
  int NumThreads() const override { return pool_.NumThreads(); }
  int CurrentThreadId() const override { return pool_.CurrentThreadId(); }
  int scheduled() const { return scheduled_; }

 private:
  Eigen::ThreadPool pool_;
  std::atomic<int> scheduled_ = 0;
};

struct Threads {
  explicit Threads(int count) : pool(count), device(&pool, count) {}
  CountingPool pool;
  Eigen::ThreadPoolDevice device;
};

template <class Scalar>
void expect_same_bits_for_any_number_of_threads(const Problem<Scalar>& p) {
  static Threads one(1), two(2), three(3), eight(8);
  SCOPED_TRACE(text(p.layout));
  const Step<Scalar> serial = run_step(p);
  EXPECT_TRUE(same_bits(serial, run_step(p, Eigen::DefaultDevice())));
  for (const Threads* threads : {&one, &two, &three, &eight})
    EXPECT_TRUE(same_bits(serial, run_step(p, threads->device))) << threads->pool.NumThreads() << " threads";
}

/// Large enough to be shared out, on layouts with many rows, long runs, many short runs and few channels, also with
/// rows that are folded (20 and 25 values of 3 and 2 channels; 16 channels, to fill four vectors), and with two rows in
/// the last part.
std::vector<Layout> large_cases() {
  return {{{20011, 17}, Order::row_major, 1},        {{20011, 17}, Order::col_major, 1},
          {{16, 33, 25, 25}, Order::row_major, 1},   {{4, 3, 150, 170}, Order::row_major, 1},
          {{600, 64, 3, 3}, Order::row_major, 1},    {{8, 41, 37, 24}, Order::row_major, -1},
          {{2, 70001, 2}, Order::row_major, 1},      {{1, 2, 150001}, Order::row_major, 1},
          {{24, 37, 2, 9, 11}, Order::col_major, 2}, {{2500, 3, 20}, Order::row_major, 1},
          {{3000, 2, 5, 5}, Order::row_major, 1},    {{64, 50, 14, 14}, Order::row_major, 1},
          {{700, 3, 14, 14}, Order::row_major, 1},   {{300, 1500}, Order::row_major, 1},
          {{130, 700}, Order::row_major, 1},         {{9001, 16}, Order::row_major, 1}};
}

TEST(Threads, SameBitsOnEveryLayout) {
  for (const Layout& layout : cases()) {
    const auto p = random_problem<float>(layout);
    for_each_target([&] { expect_same_bits_for_any_number_of_threads(p); });
  }
}

TEST(Threads, SameBitsWhereTheWorkIsShared) {
  for (const Layout& layout : large_cases()) {
    expect_same_bits_for_any_number_of_threads(random_problem<float>(layout));
    expect_same_bits_for_any_number_of_threads(random_problem<double>(layout));
    expect_same_bits_for_any_number_of_threads(random_problem<Eigen::bfloat16>(layout));
  }
}

/// Beyond the caches, where machines differ in how memory is best reached.
TEST(Threads, SameBitsAndTheOraclesHoweverMemoryIsReached) {
  const std::pair<const char*, detail::MemoryAccess> machines[] = {
      {"Zen 5", detail::zen5_access}, {"Zen 3", detail::zen3_access}, {"other", detail::other_access}};
  for (const auto& [machine, access] : machines) {
    SCOPED_TRACE(machine);
    const AccessGuard guard(access);
    for (const Layout& layout : {Layout{{90001, 64}, Order::row_major, 1},
                                 {{8001, 256}, Order::row_major, 1},
                                 {{2, 5, 700001}, Order::row_major, 1},
                                 {{20, 64, 3136}, Order::row_major, 1},
                                 {{40, 300, 196}, Order::row_major, 1},
                                 {{60, 50, 49}, Order::row_major, 1},
                                 {{130, 40, 25}, Order::row_major, 1},
                                 {{2, 6, 32808}, Order::row_major, 1}}) {
      SCOPED_TRACE(text(layout));
      const auto p = random_problem<float>(layout);
      expect_matches_oracle(p, run_step(p));
      expect_same_bits_for_any_number_of_threads(p);
    }
  }
}

TEST(Threads, LargeTensorsMatchTheOracle) {
  Threads threads(3);
  for (const Layout& layout : large_cases()) {
    SCOPED_TRACE(text(layout));
    const auto p = random_problem<float>(layout);
    expect_matches_oracle(p, run_step(p, threads.device));
  }
}

TEST(Threads, CallsFromWithinThePoolDoNotWaitForEachOther) {
  const auto p = random_problem<float>({{20011, 17}, Order::row_major, 1});
  const Step<float> expected = run_step(p);
  constexpr int calls = 4;
  std::vector<Step<float>> results(calls);
  {
    Threads threads(2);
    Eigen::Barrier all_done(calls);
    for (Step<float>& result : results) {
      threads.pool.Schedule([&] {
        result = run_step(p, threads.device);
        all_done.Notify();
      });
    }
    all_done.Wait();
  }
  for (const Step<float>& result : results) EXPECT_TRUE(same_bits(result, expected));
}

TEST(Threads, ThePoolIsUsedForLargeTensors) {
  for (const Layout& layout : large_cases()) {
    SCOPED_TRACE(text(layout));
    const auto p = random_problem<float>(layout);
    Threads threads(2);
    run_step(p, threads.device);
    EXPECT_GT(threads.pool.scheduled(), 0);
  }
}

}  // namespace
}  // namespace batchnorm::test
