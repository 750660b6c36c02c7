#pragma once

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "chart_script.hpp"
#include "results.hpp"

namespace example {

/// The exit code of a program found on the PATH; none where there is no such program.
inline std::optional<int> run_program(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], nullptr, nullptr, argv.data(), environ);
  if (error == ENOENT) return std::nullopt;
  int status = 0;
  if (error != 0 || waitpid(child, &status, 0) != child) throw std::runtime_error(arguments[0] + " cannot be run");
  return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

inline bool is_whole_svg(const std::filesystem::path& path) {
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return text.find("</svg>") != std::string::npos;
}

/// Draws the results as an SVG file beside the CSV file, and leaves the script there too.
/// False where gnuplot is not installed.
inline bool draw_chart(const std::filesystem::path& csv_path, const std::string& data_name) {
  const auto beside = [&](const char* extension) {
    return std::filesystem::path(csv_path).replace_extension(extension);
  };
  OutputFile script(beside("gp"));
  script.write(chart_script);
  OutputFile svg(beside("svg"));
  const auto exit_code =
      run_program({"gnuplot", "-c", script.path().string(), csv_path.string(), svg.path().string(), data_name});
  if (!exit_code) {
    std::filesystem::remove(svg.path());
    return false;
  }
  // gnuplot is silent about a full disk.
  if (*exit_code != 0 || !is_whole_svg(svg.path())) throw std::runtime_error(svg.path().string() + " cannot be drawn");
  return true;
}

}  // namespace example
