#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "batchnorm/detail/grid.hpp"
#include "batchnorm/options.hpp"

namespace batchnorm {

/// Eigen::DefaultDevice, Eigen::ThreadPoolDevice, or anything with their numThreads() and getPool()->Schedule().
template <class D>
concept Device = std::is_same_v<D, Eigen::DefaultDevice> || requires(const D& device) {
  device.numThreads();
};

namespace detail {

/// Tells calls without a device from those with one.
template <class X>
concept NoDevice = !Device<X>;

/// Which end of its tasks a thread begins at.
enum class Order { forwards, backwards };

/// Tasks that threads take one after another: each from a range of its own, whose memory its core may still have in the
/// cache from the call before, and then what others have left. Threads that come late find none, so the caller waits
/// for tasks and never for threads: calls from within the pool cannot block each other.
template <class Task>
class TaskQueue {
 public:
  TaskQueue(Index tasks, Index workers, Order order, const Task& task)
      : tasks_(tasks), order_(order), task_(task), ranges_(static_cast<std::size_t>(workers)) {
    for (Index k = 0; k < workers; ++k) {
      Range& range = ranges_[static_cast<std::size_t>(k)];
      range.next = range.begin = tasks * k / workers;
      range.end = tasks * (k + 1) / workers;
    }
  }

  void work(Index worker) {
    for (std::size_t k = 0; k < ranges_.size(); ++k) {
      work_on(ranges_[(static_cast<std::size_t>(worker) + k) % ranges_.size()], worker);
    }
  }

  void wait() const {
    constexpr int spins = 10'000;  // about as long as it takes to wake up again
    for (int k = 0; k < spins; ++k) {
      if (done_.load() == tasks_) return;
    }
    for (Index done = done_.load(); done != tasks_; done = done_.load()) done_.wait(done);
  }

 private:
  struct alignas(pack_bytes) Range {
    Index begin, end;
    std::atomic<Index> next;
  };

  void work_on(Range& range, Index worker) {
    for (Index k = range.next++; k < range.end; k = range.next++) {
      task_(order_ == Order::forwards ? k : range.begin + range.end - 1 - k, worker);
      if (++done_ == tasks_) done_.notify_all();
    }
  }

  const Index tasks_;
  const Order order_;
  const Task& task_;  // outlives every task, though not every thread
  std::vector<Range> ranges_;
  std::atomic<Index> done_{0};
};

/// Threads that share `tasks` tasks over `bytes` of memory, the calling one among them.
template <Device D>
Index workers(const D& device, Index tasks, Index bytes) {
  if constexpr (std::is_same_v<D, Eigen::DefaultDevice>) {
    return 1;
  } else {
    if (bytes < min_parallel_bytes) return 1;
    return std::clamp<Index>(device.numThreads(), 1, std::max<Index>(tasks, 1));
  }
}

/// Calls task(k, worker) for k = 0, ..., tasks - 1 in any order, worker < threads. Tasks do not throw.
template <Device D, class Task>
void run_tasks(const D& device, Index threads, Index tasks, Order order, const Task& task) {
  if constexpr (!std::is_same_v<D, Eigen::DefaultDevice>) {
    if (threads > 1) {
      const auto queue = std::make_shared<TaskQueue<Task>>(tasks, threads, order, task);
      for (Index worker = 1; worker < threads; ++worker) {
        device.getPool()->Schedule([queue, worker] { queue->work(worker); });
      }
      queue->work(0);
      return queue->wait();
    }
  }
  for (Index k = 0; k < tasks; ++k) task(order == Order::forwards ? k : tasks - 1 - k, Index(0));
}

}  // namespace detail
}  // namespace batchnorm
