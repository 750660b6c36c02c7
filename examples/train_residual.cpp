// A convolutional network with batch normalization: how it is built, trained, and freed of it again for inference.

#define EIGEN_USE_THREADS

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "support/chart.hpp"
#include "support/folding.hpp"
#include "support/load.hpp"
#include "support/output_file.hpp"
#include "support/residual_chart_script.hpp"
#include "support/residual_report.hpp"
#include "support/residual_training.hpp"

namespace {

using namespace example;

struct Arguments {
  std::string data;
  std::string output = ".";
  int epochs = 8;
  unsigned seed = 1;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
};

void run(const Arguments& arguments) {
  const DataSet data = load(arguments.data, arguments.seed);
  OutputFile results(arguments.output, "train_residual.csv");
  Eigen::ThreadPool pool(arguments.threads);
  const Device device(&pool, arguments.threads);

  std::printf("%s; kernels for %s\n", describe(data).c_str(), batchnorm::name(batchnorm::active_target()));
  std::fflush(stdout);
  ResidualNetwork network(arguments.seed);
  const std::vector<Epoch> history = train(network, device, data, {arguments.epochs, arguments.seed});
  print_history(history);
  print_folding(compare_folded(network, device, data.held_out.images));

  results.write(csv(history));
  show_chart(results.path(), residual_chart_script, describe(data));
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Trains a residual network on digits, then folds its batch normalizations into its convolutions.",
               "train_residual");
  app.add_option("--data", arguments.data, "folder with the IDX files of MNIST (default: digits drawn here)");
  app.add_option("--output", arguments.output, "folder for the chart and its data")->capture_default_str();
  app.add_option("--epochs", arguments.epochs, "how often each digit is shown")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seed", arguments.seed, "of weights, batches, shifts and drawn digits")->capture_default_str();
  app.add_option("--threads", arguments.threads, "the result is the same for any number")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_residual: %s\n", error.what());
    return 1;
  }
}
