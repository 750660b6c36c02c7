#pragma once

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>

namespace example {

/// A bar with the time left, on stderr: one line that changes on a terminal, a new line every tenth elsewhere.
class Progress {
 public:
  explicit Progress(std::int64_t total) : total_(total) { show(); }

  /// May be called from any thread.
  void advance(std::int64_t amount) {
    const std::lock_guard lock(mutex_);
    done_ += amount;
    const bool due =
        on_terminal_ ? Clock::now() - last_shown_ > std::chrono::milliseconds(100) : tenths() > shown_tenths_;
    if (due || done_ == total_) show();
    if (done_ == total_ && on_terminal_) std::fputc('\n', stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;

  int tenths() const { return static_cast<int>(10 * done_ / total_); }

  void show() {
    constexpr int width = 40;
    const auto filled = static_cast<std::size_t>(width * done_ / total_);
    const std::string bar = std::string(filled, '#') + std::string(width - filled, '.');
    std::fprintf(stderr, "%s[%s] %3d %%  %-20s%s", on_terminal_ ? "\r" : "", bar.c_str(),
                 static_cast<int>(100 * done_ / total_), time().c_str(), on_terminal_ ? "" : "\n");
    std::fflush(stderr);
    shown_tenths_ = tenths();
    last_shown_ = Clock::now();
  }

  std::string time() const {
    if (done_ == 0) return "starting";
    const std::chrono::duration<double> elapsed = Clock::now() - start_;
    if (done_ == total_) return minutes(elapsed.count()) + " in all";
    return minutes(elapsed.count() * static_cast<double>(total_ - done_) / static_cast<double>(done_)) + " left";
  }

  static std::string minutes(double seconds) {
    const long whole = std::lround(seconds);
    const std::string rest = std::to_string(whole % 60);
    return std::to_string(whole / 60) + ":" + (rest.size() < 2 ? "0" : "") + rest;
  }

  const std::int64_t total_;
  const bool on_terminal_ = isatty(STDERR_FILENO) == 1;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_shown_;
  std::int64_t done_ = 0;
  int shown_tenths_ = 0;
  std::mutex mutex_;
};

}  // namespace example
