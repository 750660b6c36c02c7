#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace example {

/// A text file; every failure is an error.
class OutputFile {
 public:
  /// Makes the folder where there is none.
  OutputFile(const std::filesystem::path& folder, const std::string& name) : OutputFile(made(folder) / name) {}
  explicit OutputFile(std::filesystem::path path) : path_(std::move(path)), stream_(path_) { check(); }

  void write(const std::string& text) {
    stream_ << text << std::flush;
    check();
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  static const std::filesystem::path& made(const std::filesystem::path& folder) {
    std::error_code ignored;  // Where no folder comes about, the file in it cannot be written, and says so.
    std::filesystem::create_directories(folder, ignored);
    return folder;
  }

  void check() const {
    if (!stream_) throw std::runtime_error(path_.string() + " cannot be written");
  }

  std::filesystem::path path_;
  std::ofstream stream_;
};

}  // namespace example
