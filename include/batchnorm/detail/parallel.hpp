#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <utility>
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

/// Refers to a device of any type, so that what runs on devices is compiled once for all of them.
class AnyDevice {
 public:
  template <Device D>
  AnyDevice(const D& device) : device_(&device) {  // NOLINT(google-explicit-constructor): stands for the device
    if constexpr (!std::is_same_v<D, Eigen::DefaultDevice>) {
      threads_ = device.numThreads();
      schedule_ = [](const void* pool_device, std::function<void()>&& work) {
        static_cast<const D*>(pool_device)->getPool()->Schedule(std::move(work));
      };
    }
  }

  Index threads() const { return threads_; }
  void schedule(std::function<void()>&& work) const { schedule_(device_, std::move(work)); }

 private:
  const void* device_;
  Index threads_ = 1;
  void (*schedule_)(const void*, std::function<void()>&&) = nullptr;
};

/// Refers to what is called for each task.
class Task {
 public:
  template <class F>
  explicit Task(const F& f)
      : f_(&f),
        call_([](const void* of_type_f, Index k, Index worker) { (*static_cast<const F*>(of_type_f))(k, worker); }) {}

  void operator()(Index k, Index worker) const { call_(f_, k, worker); }

 private:
  const void* f_;
  void (*call_)(const void*, Index, Index);
};

/// Which end of its tasks a thread begins at.
enum class Order { forwards, backwards };

/// Tasks that threads take one after another: each from a range of its own, whose memory its core may still have in the
/// cache from the call before, and then what others have left. Threads that come late find none, so the caller waits
/// for tasks and never for threads: calls from within the pool cannot block each other.
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
  const Task task_;  // what it refers to outlives every task, though not every thread
  std::vector<Range> ranges_;
  std::atomic<Index> done_{0};
};

/// Threads that share `tasks` tasks over `bytes` of memory, the calling one among them.
inline Index workers(const AnyDevice& device, Index tasks, Index bytes) {
  if (bytes < min_parallel_bytes) return 1;
  return std::clamp<Index>(device.threads(), 1, std::max<Index>(tasks, 1));
}

/// On the calling thread and threads of the device's pool.
inline void share_tasks(const AnyDevice& device, Index threads, Index tasks, Order order, const Task& task) {
  const auto queue = std::make_shared<TaskQueue>(tasks, threads, order, task);
  for (Index worker = 1; worker < threads; ++worker) {
    device.schedule([queue, worker] { queue->work(worker); });
  }
  queue->work(0);
  queue->wait();
}

/// Calls f(k, worker) for k = 0, ..., tasks - 1 in any order, worker < threads. It does not throw.
template <class F>
void run_tasks(const AnyDevice& device, Index threads, Index tasks, Order order, const F& f) {
  if (threads > 1) return share_tasks(device, threads, tasks, order, Task(f));
  for (Index k = 0; k < tasks; ++k) f(order == Order::forwards ? k : tasks - 1 - k, Index(0));
}

}  // namespace detail
}  // namespace batchnorm
