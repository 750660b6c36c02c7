#include <CLI/CLI.hpp>
#include <cstdio>

#include "accuracy.hpp"
#include "chart.hpp"
#include "measure.hpp"
#include "report.hpp"

namespace compare {
namespace {

enum class Question { speed, accuracy };
constexpr std::array questions = {Question::speed, Question::accuracy};

const char* name(Question question) { return question == Question::speed ? "speed" : "accuracy"; }

struct Settings {
  std::vector<Question> questions{compare::questions.begin(), compare::questions.end()};
  std::vector<Pass> passes{compare::passes.begin(), compare::passes.end()};
  std::vector<Layout> layouts{compare::layouts.begin(), compare::layouts.end()};
  std::vector<int> threads = {1, 2};
  std::vector<std::string> shapes, left_out;
  double seconds = 1;
  bool use_double = false, quick = false;
  compare::Placement placement;
  std::string csv, chart;

  bool asks(Question question) const { return std::count(questions.begin(), questions.end(), question) > 0; }
};

template <class Enum, std::size_t n>
std::map<std::string, Enum> by_name(const std::array<Enum, n>& values) {
  std::map<std::string, Enum> names;
  for (const Enum value : values) names[name(value)] = value;
  return names;
}

template <class Enum, std::size_t n>
void add_choice(CLI::App& app, const char* option, std::vector<Enum>& chosen, const std::array<Enum, n>& values,
                const char* text) {
  app.add_option(option, chosen, text)
      ->transform(CLI::CheckedTransformer(by_name(values), CLI::ignore_case))
      ->delimiter(',');
}

Settings parse(int argc, char** argv) {
  Settings settings;
  CLI::App app("Compares the speed and the accuracy of batch normalization libraries.");
  add_choice(app, "--questions", settings.questions, questions, "What to measure");
  add_choice(app, "--passes", settings.passes, passes, "Passes to time");
  add_choice(app, "--layouts", settings.layouts, layouts, "Layouts to time");
  app.add_option("--threads", settings.threads, "Numbers of threads")
      ->check(CLI::Range(1, 1024))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--shapes", settings.shapes, "Only shapes or networks that contain one of these texts")
      ->delimiter(',');
  app.add_option("--without", settings.left_out, "Libraries to leave out")
      ->check(CLI::IsMember(names_of({Role::competitor, Role::variant, Role::reference})))
      ->delimiter(',');
  app.add_option("--seconds", settings.seconds, "Time for one pass over one tensor by all libraries together")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--double", settings.use_double, "double instead of float");
  app.add_flag("--quick", settings.quick, "A few shapes, a third of the time");
  app.add_flag_callback(
      "--huge-pages", [&] { settings.placement.pages = Pages::huge; }, "Ask for huge pages");
  app.add_option("--offset", settings.placement.offset, "Bytes from a page's beginning to each tensor")
      ->check(CLI::IsMember({0, 16, 32, 48}))
      ->capture_default_str();
  app.add_option("--csv", settings.csv, "File for all times")->take_last();
  app.add_option("--chart", settings.chart, "File for a chart (SVG)")->take_last();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error));
  }
  if (settings.quick) settings.seconds /= 3;
  return settings;
}

bool wanted(const NamedShape& shape, const Settings& settings) {
  if (settings.quick && !shape.quick) return false;
  const auto matches = [&](const std::string& text) {
    return text_of(shape.dims).find(text) != std::string::npos || shape.network.find(text) != std::string::npos;
  };
  return settings.shapes.empty() || std::any_of(settings.shapes.begin(), settings.shapes.end(), matches);
}

std::vector<NamedShape> wanted_shapes(const Settings& settings) {
  std::vector<NamedShape> result = shapes();
  std::erase_if(result, [&](const NamedShape& shape) { return !wanted(shape, settings); });
  if (result.empty()) throw std::runtime_error("no shape or network of that name is in the list");
  return result;
}

template <class T>
Cell measure_pass(const NamedShape& shape, const Problem& problem, Pass pass, const Tensors<T>& tensors,
                  const std::vector<Entrant<T>>& entrants, double seconds) {
  const double difference = check_agreement(entrants, pass, problem, tensors);
  for (const Entrant<T>& entrant : entrants) {
    if (pass == Pass::backward) entrant.peer->run(Pass::training);
  }
  Cell cell{std::is_same_v<T, float> ? "float" : "double", shape, problem, pass, {}, sizeof(T), {}};
  cell.seconds = time_all(entrants, pass, seconds);
  for (const Entrant<T>& entrant : entrants) {
    if (entrant.library->role == Role::subject) cell.workspace_bytes = entrant.peer->workspace_bytes(pass);
  }
  std::fprintf(stderr, "%-16s %-4s %d %-9s  of ceiling %5s  largest difference %.1e\n", text_of(problem.dims).c_str(),
               name(problem.layout), problem.threads, name(pass), text_of(fraction_of_ceiling(cell)).c_str(),
               difference);
  return cell;
}

template <class T>
void measure_problem(const NamedShape& shape, const Problem& problem, const Tensors<T>& tensors,
                     const Settings& settings, std::vector<Cell>& cells) {
  const std::initializer_list<Role> roles = {Role::subject,    Role::ceiling, Role::ceiling_with_sums,
                                             Role::competitor, Role::variant, Role::reference};
  const auto entrants = enter(problem, tensors, roles, settings.left_out);
  for (const Pass pass : settings.passes) {
    if (problem.values_per_channel() == 1 && pass != Pass::inference) continue;  // no variance
    cells.push_back(measure_pass(shape, problem, pass, tensors, entrants, settings.seconds));
  }
}

template <class T>
std::vector<Cell> measure_speed(const Settings& settings) {
  const std::vector<NamedShape> shapes = wanted_shapes(settings);
  std::vector<Cell> cells;
  for (std::size_t k = 0; k < shapes.size(); ++k) {
    std::fprintf(stderr, "shape %zu of %zu\n", k + 1, shapes.size());
    const Arena<T> arena(shapes[k].dims, settings.placement);
    for (const Layout layout : shapes[k].layouts()) {
      if (std::count(settings.layouts.begin(), settings.layouts.end(), layout) == 0) continue;
      for (const int threads : settings.threads) {
        measure_problem<T>(shapes[k], {shapes[k].dims, layout, threads}, arena.tensors(), settings, cells);
      }
    }
  }
  return cells;
}

void print_setting(const Settings& settings) {
  std::printf("compiler: %s, flags: %s\n", COMPARE_COMPILER, COMPARE_FLAGS);
  for (const Library& library : libraries()) {
    if (!library.version.empty()) std::printf("%s %s\n", library.name.c_str(), library.version.c_str());
  }
  if (*COMPARE_LEFT_OUT != '\0') std::printf("left out, because not installed: %s\n", COMPARE_LEFT_OUT);
  std::printf("huge pages: %s, %s\n", huge_pages_setting().c_str(),
              settings.placement.pages == Pages::huge ? "asked for" : "not asked for");
  std::printf("tensors begin %zu bytes behind the beginning of a page\n\n", settings.placement.offset);
}

/// Better at once than after minutes of measuring.
void require_writable(const std::string& path) {
  if (!path.empty() && !std::ofstream(path, std::ios::app)) throw std::runtime_error("cannot write " + path);
}

template <class T>
void answer(const Settings& settings) {
  if (settings.asks(Question::accuracy)) {
    const std::vector<AccuracyRow> rows = measure_accuracy<T>(settings.left_out);
    print_accuracy(rows, "y", &Errors::y);
    print_accuracy(rows, "dx", &Errors::dx);
  }
  if (!settings.asks(Question::speed)) return;
  const std::vector<Cell> cells = measure_speed<T>(settings);
  print_tables(cells);
  print_overheads(cells);
  print_means(cells);
  if (!settings.csv.empty()) write_csv(settings.csv, cells);
  if (!settings.chart.empty()) draw_chart(settings.chart, cells);
}

int run(int argc, char** argv) {
  const Settings settings = parse(argc, argv);
  require_writable(settings.csv);
  require_writable(settings.chart);
  // In step with the progress on stderr where both go to the same place.
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  print_setting(settings);
  settings.use_double ? answer<double>(settings) : answer<float>(settings);
  return 0;
}

}  // namespace
}  // namespace compare

int main(int argc, char** argv) {
  try {
    return compare::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "compare: %s\n", error.what());
    return 1;
  }
}
