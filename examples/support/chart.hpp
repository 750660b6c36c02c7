#pragma once

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "output_file.hpp"

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

/// Draws the results as an SVG file beside the CSV file, and leaves gnuplot's script there too. The script's arguments
/// are the CSV file, the SVG file and the name of the data.
/// False where gnuplot is not installed.
inline bool draw_chart(const std::filesystem::path& csv_path, const std::string& script, const std::string& data_name) {
  const auto beside = [&](const char* extension) {
    return std::filesystem::path(csv_path).replace_extension(extension);
  };
  OutputFile script_file(beside("gp"));
  script_file.write(script);
  OutputFile svg(beside("svg"));
  const auto exit_code =
      run_program({"gnuplot", "-c", script_file.path().string(), csv_path.string(), svg.path().string(), data_name});
  if (!exit_code) {
    std::filesystem::remove(svg.path());
    return false;
  }
  // gnuplot is silent about a full disk.
  if (*exit_code != 0 || !is_whole_svg(svg.path())) throw std::runtime_error(svg.path().string() + " cannot be drawn");
  return true;
}

/// Draws the chart and says where it is.
inline void show_chart(const std::filesystem::path& csv_path, const std::string& script, const std::string& data_name) {
  const std::string data_path = csv_path.string();
  if (draw_chart(csv_path, script, data_name)) {
    const std::string svg_name = csv_path.stem().string() + ".svg";
    std::printf("\nThe chart is beside its data, %s, as %s.\n", data_path.c_str(), svg_name.c_str());
  } else {
    std::printf("\ngnuplot is not installed, so there is no chart; its data is %s.\n", data_path.c_str());
  }
}

}  // namespace example
