#include <benchmark/benchmark.h>

#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "compare/measure.hpp"
#include "compare/shapes.hpp"

// Forward training, inference and backward of this library and of Eigen expressions, beside the least time that their
// traffic takes. A row's counter of_ceiling is that time over the row's own.

namespace {

using namespace compare;

/// Rows come shape by shape, so the memory of one shape at a time is enough.
Tensors<float> tensors_of(const Dimensions& dims) {
  static std::optional<Arena<float>> arena;
  static Dimensions arena_dims;
  if (arena_dims != dims) {
    arena.emplace(dims);
    arena_dims = dims;
  }
  return arena->tensors();
}

struct Ceiling {
  const Library* library;
  double seconds;
};

Ceiling measure_ceiling(const Problem& problem, Pass pass) {
  constexpr double seconds = 0.1;
  std::vector<Entrant<float>> entrants = enter(problem, tensors_of(problem.dims), {Role::ceiling});
  const auto times = time_all(entrants, pass, seconds);
  Ceiling best{nullptr, HUGE_VAL};
  for (const Entrant<float>& entrant : entrants) {
    const double time = times.at(entrant.library->name);
    if (time < best.seconds) best = {entrant.library, time};
  }
  return best;
}

/// The layout makes no difference to it.
const Ceiling& ceiling_of(const Problem& problem, Pass pass) {
  static std::map<std::tuple<Dimensions, int, Pass>, Ceiling> measured;
  const std::tuple key(problem.dims, problem.threads, pass);
  const auto found = measured.find(key);
  return found != measured.end() ? found->second : measured.emplace(key, measure_ceiling(problem, pass)).first->second;
}

void time_pass(benchmark::State& state, const Library& library, const Problem& problem, Pass pass) {
  const double ceiling = ceiling_of(problem, pass).seconds;
  const auto peer = library.make<float>(problem, tensors_of(problem.dims));
  if (pass == Pass::backward) peer->run(Pass::training);
  peer->run(pass);

  const auto start = Clock::now();
  for (auto _ : state) peer->run(pass);
  const double seconds = seconds_since(start);

  const auto passes = static_cast<double>(state.iterations());
  state.SetBytesProcessed(state.iterations() * values_moved(pass, problem) * Index{sizeof(float)});
  state.counters["of_ceiling"] = ceiling * passes / seconds;
  if (const auto bytes = peer->workspace_bytes(pass)) state.counters["workspace"] = static_cast<double>(*bytes);
}

template <class Row>
void add_row(const std::string& name, const Row& row) {
  benchmark::RegisterBenchmark(name.c_str(), row)->UseRealTime()->Unit(benchmark::kMicrosecond);
}

void add_rows(const NamedShape& shape, int threads, Pass pass) {
  const std::string name =
      std::string(compare::name(pass)) + '/' + text_of(shape.dims) + "/threads:" + std::to_string(threads) + '/';
  const Problem any_layout{shape.dims, shape.layouts()[0], threads};
  if (any_layout.values_per_channel() == 1 && pass != Pass::inference) return;  // no variance
  add_row(name + "ceiling", [=](benchmark::State& state) {
    const Library& library = *ceiling_of(any_layout, pass).library;
    time_pass(state, library, any_layout, pass);
    state.SetLabel(library.name);
  });
  for (const Layout layout : shape.layouts()) {
    for (const Library& library : libraries()) {
      if (is_ceiling(library.role)) continue;
      add_row(name + compare::name(layout) + '/' + library.name, [=, &library](benchmark::State& state) {
        time_pass(state, library, {shape.dims, layout, threads}, pass);
      });
    }
  }
}

void add_all_rows() {
  for (const NamedShape& shape : shapes()) {
    if (!shape.quick) continue;
    for (const int threads : {1, 2}) {
      for (const Pass pass : passes) add_rows(shape, threads, pass);
    }
  }
}

void add_context() {
  for (const Library& library : libraries()) {
    if (!library.version.empty()) benchmark::AddCustomContext(library.name, library.version);
  }
  benchmark::AddCustomContext("huge pages", huge_pages_setting() + ", not asked for");
}

}  // namespace

int main(int argc, char** argv) {
  // Before the arguments of the command line, which overrule it.
  char min_time[] = "--benchmark_min_time=0.1";
  std::vector<char*> arguments = {argv[0], min_time};
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  add_context();
  add_all_rows();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
