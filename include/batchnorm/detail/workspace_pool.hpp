#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "batchnorm/scalar.hpp"

namespace batchnorm::detail {

/// Lends workspaces to calls that may run at the same time, and keeps them for the next ones.
template <class Scalar>
class WorkspacePool {
 public:
  WorkspacePool() = default;
  WorkspacePool(const WorkspacePool&) {}  // a copy starts with none
  WorkspacePool& operator=(const WorkspacePool&) { return *this; }

  class Loan {
   public:
    explicit Loan(WorkspacePool& pool) : pool_(pool), workspace_(pool.take()) {}
    ~Loan() { pool_.give_back(std::move(workspace_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    Workspace<Scalar>& operator*() const { return *workspace_; }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Workspace<Scalar>> workspace_;
  };

  Index bytes() {
    const std::lock_guard lock(mutex_);
    Index sum = 0;
    for (const auto& workspace : idle_) sum += workspace->bytes();
    return sum;
  }

 private:
  std::unique_ptr<Workspace<Scalar>> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) {
      idle_.reserve(++made_);  // so that giving back never allocates
      return std::make_unique<Workspace<Scalar>>();
    }
    auto workspace = std::move(idle_.back());
    idle_.pop_back();
    return workspace;
  }

  void give_back(std::unique_ptr<Workspace<Scalar>> workspace) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(workspace));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace<Scalar>>> idle_;
  std::size_t made_ = 0;
};

}  // namespace batchnorm::detail
