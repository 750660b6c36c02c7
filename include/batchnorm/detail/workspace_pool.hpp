#pragma once

#include <atomic>
#include <utility>

#include "batchnorm/moments.hpp"

namespace batchnorm::detail {

/// What one call of `infer` needs.
template <class Scalar>
struct InferenceMemory {
  Workspace<Scalar> workspace;
  BasicMoments<StatisticOf<Scalar>> moments;  // where it normalizes with those of x
};

/// Lends memory to calls that may run at the same time, and keeps it for the next ones. The list of what it has only
/// grows, so that a loan takes no lock, which would cost a tiny call a tenth of its time.
template <class Scalar>
class WorkspacePool {
  struct Entry {
    InferenceMemory<Scalar> memory;
    std::atomic_flag in_use;
    Entry* next = nullptr;
  };

 public:
  WorkspacePool() = default;
  WorkspacePool(const WorkspacePool&) {}  // a copy starts with none
  WorkspacePool& operator=(const WorkspacePool&) { return *this; }
  ~WorkspacePool() {
    for (Entry* entry = first_.load(); entry != nullptr;) delete std::exchange(entry, entry->next);
  }

  class Loan {
   public:
    explicit Loan(WorkspacePool& pool) : entry_(pool.take()) {}
    ~Loan() { give_back(entry_); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    InferenceMemory<Scalar>* operator->() const { return &entry_.memory; }

   private:
    Entry& entry_;
  };

  /// Of what is not lent. A call that runs at the same time may find nothing to borrow, and adds to the list.
  Index bytes() {
    Index sum = 0;
    for (Entry* entry = first_.load(); entry != nullptr; entry = entry->next) {
      if (entry->in_use.test_and_set()) continue;
      sum += entry->memory.workspace.bytes();
      give_back(*entry);
    }
    return sum;
  }

 private:
  Entry& take() {
    for (Entry* entry = first_.load(); entry != nullptr; entry = entry->next) {
      if (!entry->in_use.test_and_set()) return *entry;
    }
    Entry* const made = new Entry;
    made->in_use.test_and_set();
    made->next = first_.load();
    while (!first_.compare_exchange_weak(made->next, made)) {
    }
    return *made;
  }

  static void give_back(Entry& entry) { entry.in_use.clear(std::memory_order_release); }

  std::atomic<Entry*> first_{nullptr};
};

}  // namespace batchnorm::detail
