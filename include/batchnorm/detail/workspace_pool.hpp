#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "batchnorm/moments.hpp"

namespace batchnorm::detail {

/// What one call of `infer` needs.
template <class Scalar>
struct InferenceMemory {
  Workspace<Scalar> workspace;
  BasicMoments<StatisticOf<Scalar>> moments;  // where it normalizes with those of x
};

/// Lends memory to calls that may run at the same time, and keeps it for the next ones.
template <class Scalar>
class WorkspacePool {
 public:
  using Memory = InferenceMemory<Scalar>;

  WorkspacePool() = default;
  WorkspacePool(const WorkspacePool&) {}  // a copy starts with none
  WorkspacePool& operator=(const WorkspacePool&) { return *this; }

  class Loan {
   public:
    explicit Loan(WorkspacePool& pool) : pool_(pool), memory_(pool.take()) {}
    ~Loan() { pool_.give_back(std::move(memory_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    Memory* operator->() const { return memory_.get(); }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Memory> memory_;
  };

  Index bytes() {
    const std::lock_guard lock(mutex_);
    Index sum = 0;
    for (const auto& memory : idle_) sum += memory->workspace.bytes();
    return sum;
  }

 private:
  std::unique_ptr<Memory> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) {
      idle_.reserve(++made_);  // so that giving back never allocates
      return std::make_unique<Memory>();
    }
    std::unique_ptr<Memory> memory = std::move(idle_.back());
    idle_.pop_back();
    return memory;
  }

  void give_back(std::unique_ptr<Memory> memory) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(memory));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Memory>> idle_;
  std::size_t made_ = 0;
};

}  // namespace batchnorm::detail
