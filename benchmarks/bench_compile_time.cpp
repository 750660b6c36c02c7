// How long the compiler takes for a file that uses a layer, beside one with Eigen's tensors alone.

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

namespace {

/// `library`: one of those in compile_time/program.cpp.
void compile(benchmark::State& state, const std::string& library) {
  const std::string command = COMPILE_COMMAND " -DLIBRARY=" + library;
  for (auto _ : state) {
    if (std::system(command.c_str()) != 0) return state.SkipWithError("does not compile");
  }
}

void add(const char* name, const char* library) {
  benchmark::RegisterBenchmark(name, compile, library)->UseRealTime()->Unit(benchmark::kMillisecond)->Iterations(1);
}

}  // namespace

int main(int argc, char** argv) {
  add("Eigen's tensors alone", "EIGEN_ALONE");
  add("and batchnorm.hpp", "INCLUDED");
  add("and a layer's training step and inference", "LAYER");
  add("the same, compiled once elsewhere", "LAYER_COMPILED_ELSEWHERE");
  add("the file that compiles them once", "LAYERS_FILE");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return EXIT_FAILURE;
  benchmark::RunSpecifiedBenchmarks();
  return EXIT_SUCCESS;
}
