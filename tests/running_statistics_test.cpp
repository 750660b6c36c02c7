// Running averages against their definitions, written as sums over all batches, and the presets of Options.
#include <functional>

#include "step.hpp"

namespace batchnorm::test {
namespace {

/// The average after the given batches, from the initial value.
using Definition = std::function<Real(const std::vector<Real>& batches, Real initial)>;

/// (1 - w)^T initial + sum of w (1 - w)^(T - t) batch t.
Real exponential(const std::vector<Real>& batches, Real initial, Real weight) {
  Real sum = 0, of_batch = weight;
  for (auto batch = batches.rbegin(); batch != batches.rend(); ++batch, of_batch *= 1 - weight)
    sum += of_batch * *batch;
  return sum + std::pow(1 - weight, static_cast<Real>(batches.size())) * initial;
}

Real plain_mean(const std::vector<Real>& batches) {
  Real sum = 0;
  for (Real batch : batches) sum += batch;
  return sum / static_cast<Real>(batches.size());
}

struct Rule {
  const char* name;
  RunningAverage average;
  Definition definition;
};

std::vector<Rule> rules() {
  const auto with_weight = [](Real weight) -> Definition {
    return [=](const auto& batches, Real initial) { return exponential(batches, initial, weight); };
  };
  const auto without_initial = [](Real weight) -> Definition {
    return [=](const auto& batches, Real) {
      return exponential(batches, 0, weight) / (1 - std::pow(1 - weight, static_cast<Real>(batches.size())));
    };
  };
  const Definition mean = [](const auto& batches, Real) { return plain_mean(batches); };
  const Definition mean_of_3_then_thirds = [](const auto& batches, Real) {
    const auto third = batches.begin() + std::min<std::ptrdiff_t>(3, std::ssize(batches));
    return exponential({third, batches.end()}, plain_mean({batches.begin(), third}), 1.0L / 3);
  };
  const Definition initial_value = [](const auto&, Real initial) { return initial; };
  return {{"new_weight 0.1", new_weight(0.1), with_weight(0.1L)},
          {"new_weight 0", new_weight(0), initial_value},
          {"new_weight 1", new_weight(1), with_weight(1)},
          {"old_weight 0.99", old_weight(0.99), with_weight(0.01L)},
          {"old_weight 0.25", old_weight(0.25), with_weight(0.75L)},
          {"cumulative", cumulative(), mean},
          {"debiased 0.1", debiased(0.1), without_initial(0.1L)},
          {"debiased 0.001", debiased(0.001), without_initial(0.001L)},
          {"debiased 1", debiased(1), with_weight(1)},
          {"windowed 3", windowed(3), mean_of_3_then_thirds},
          {"windowed 1", windowed(1), with_weight(1)},
          {"windowed 100", windowed(100), mean},
          {"none", none(), initial_value}};
}

Moments moments_of(double count, double mean, double var) {
  Moments moments(1);
  moments.count = count;
  moments.mean[0] = mean;
  moments.m2[0] = var * count;
  return moments;
}

TEST(RunningStatistics, StartAtMean0Variance1) {
  const RunningStatistics running(3);
  EXPECT_EQ(running.mean, Eigen::VectorXd::Zero(3));
  EXPECT_EQ(running.var, Eigen::VectorXd::Ones(3));
  EXPECT_EQ(running.batches_seen, 0);
}

TEST(RunningStatistics, FollowTheDefinitionOfEveryRule) {
  for (const Rule& rule : rules()) {
    for (const Variance variance : {Variance::unbiased, Variance::biased}) {
      RunningStatistics running(1, rule.average, variance);
      std::vector<Real> means, vars;
      for (int batch = 1; batch <= 7; ++batch) {
        SCOPED_TRACE(testing::Message() << rule.name << ", batch " << batch);
        const double count = 2 + batch % 3, mean = batch * batch - 10, var = 0.5 + batch;
        running.update(moments_of(count, mean, var));
        means.push_back(mean);
        vars.push_back(variance == Variance::biased ? var : static_cast<Real>(var) * count / (count - 1));
        EXPECT_NEAR(running.mean[0], static_cast<double>(rule.definition(means, 0)), 1e-12);
        EXPECT_NEAR(running.var[0], static_cast<double>(rule.definition(vars, 1)), 1e-12);
        EXPECT_EQ(running.batches_seen, batch);
      }
    }
  }
}

TEST(RunningStatistics, AreUnchangedByNoValues) {
  RunningStatistics running(1);
  running.update(moments_of(4, 5, 6));
  const RunningStatistics before = running;
  running.update(Moments(1));
  EXPECT_EQ(running.mean, before.mean);
  EXPECT_EQ(running.var, before.var);
  EXPECT_EQ(running.batches_seen, 1);
}

TEST(RunningStatistics, AreMomentsForNormalize) {
  RunningStatistics running(2);
  running.mean << 3, -4;
  running.var << 0.5, 7;
  const Moments moments = running.moments();
  EXPECT_EQ(moments.mean, running.mean);
  EXPECT_EQ(moments.var(), running.var);
  EXPECT_GT(moments.count, 0);
}

/// The layer on batches of different sizes, against the oracle's statistics of each.
TEST(RunningStatistics, OfALayerFollowTheBatches) {
  for (const Rule& rule : rules()) {
    for (const Variance variance : {Variance::unbiased, Variance::biased}) {
      BatchNorm<float> layer(2, {.average = rule.average, .running_variance = variance});
      std::vector<Real> means[2], vars[2];
      for (unsigned batch = 1; batch <= 5; ++batch) {
        SCOPED_TRACE(testing::Message() << rule.name << ", batch " << batch);
        const auto p = random_problem<float>({{10 + 3 * batch, 2}, Order::row_major, 1}, batch);
        const auto statistics = oracle::statistics(p.layout, p.x.cast<Real>());
        const Real count = static_cast<Real>(p.layout.count());
        Flat<float> y(p.x.size());
        auto y_tensor = tensor<2, Eigen::RowMajor>(y, p.layout);
        layer.forward(tensor<2, Eigen::RowMajor>(p.x, p.layout), y_tensor);
        for (Index c = 0; c < 2; ++c) {
          means[c].push_back(statistics.mean[c]);
          vars[c].push_back(statistics.var[c] * (variance == Variance::biased ? 1 : count / (count - 1)));
          const double tolerance = static_cast<double>(test::tolerance<float>(Quantity::running_statistic));
          EXPECT_NEAR(layer.running_mean()[c], static_cast<double>(rule.definition(means[c], 0)), tolerance);
          EXPECT_NEAR(layer.running_var()[c], static_cast<double>(rule.definition(vars[c], 1)), 3 * tolerance);
        }
        EXPECT_EQ(layer.batches_seen(), batch);
      }
    }
  }
}

void expect_weights(const RunningAverage& average, double first, double tenth) {
  EXPECT_NEAR(average.weight(1), first, 1e-15);
  EXPECT_NEAR(average.weight(10), tenth, 1e-15);
}

TEST(Options, DefaultsArePyTorchs) {
  for (const Options& options : {Options{}, pytorch_options()}) {
    EXPECT_EQ(options.epsilon, 1e-5);
    EXPECT_EQ(options.axis, 1);
    expect_weights(options.average, 0.1, 0.1);
    EXPECT_EQ(options.running_variance, Variance::unbiased);
    EXPECT_EQ(options.affine, Affine::scale_and_shift);
    EXPECT_EQ(options.single_value, SingleValue::error);
  }
}

TEST(Options, Keras) {
  const Options options = keras_options();
  EXPECT_EQ(options.epsilon, 1e-3);
  EXPECT_EQ(options.axis, -1);
  expect_weights(options.average, 0.01, 0.01);
  EXPECT_EQ(options.running_variance, Variance::biased);
  EXPECT_EQ(options.affine, Affine::scale_and_shift);
}

TEST(Options, Onnx) {
  const Options options = onnx_options();
  EXPECT_EQ(options.epsilon, 1e-5);
  EXPECT_EQ(options.axis, 1);
  expect_weights(options.average, 0.1, 0.1);
  EXPECT_EQ(options.running_variance, Variance::biased);
  EXPECT_EQ(options.affine, Affine::scale_and_shift);
}

TEST(Options, Caffe) {
  const Options options = caffe_options();
  EXPECT_EQ(options.epsilon, 1e-5);
  EXPECT_EQ(options.axis, 1);
  EXPECT_EQ(options.affine, Affine::none);
  // Caffe divides a decayed sum by the decayed count: 1 + 0.999 + ... + 0.999^(t - 1).
  expect_weights(options.average, 1, 0.001 / (1 - std::pow(0.999, 10)));
}

TEST(Options, Dlib) {
  const Options options = dlib_options();
  EXPECT_EQ(options.epsilon, 1e-4);
  EXPECT_EQ(options.axis, 1);
  EXPECT_EQ(options.running_variance, Variance::unbiased);
  // dlib's weight is 1 - n / (n + 1), with n the number of batches before, at most running_stats_window_size.
  for (const Index batch : {1, 2, 10, 100, 101, 102, 1000}) {
    const double before = std::min(static_cast<double>(batch - 1), 100.0);
    EXPECT_NEAR(options.average.weight(batch), 1 - before / (before + 1), 1e-15);
  }
}

}  // namespace
}  // namespace batchnorm::test
