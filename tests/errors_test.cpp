// Every error, word for word, and that nothing has changed after it.
#include <limits>

#include "step.hpp"

namespace batchnorm::test {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
using TensorMap = Eigen::TensorMap<Tensor>;

TEST(Errors, AreInvalidArguments) { EXPECT_THROW(BatchNorm<float>(0), std::invalid_argument); }

// ---- Layers and options, when they are made.

TEST(Errors, Channels) {
  EXPECT_EQ(error_of([] { BatchNorm<float>(0); }), "batchnorm::BatchNorm: channels is 0; it must be at least 1");
  EXPECT_EQ(error_of([] { BatchNorm<double>(-3); }), "batchnorm::BatchNorm: channels is -3; it must be at least 1");
  EXPECT_EQ(error_of([] { RunningStatistics(0); }),
            "batchnorm::RunningStatistics: channels is 0; it must be at least 1");
}

TEST(Errors, Epsilon) {
  const auto with_epsilon = [](double epsilon) { return error_of([=] { BatchNorm<float>(3, {.epsilon = epsilon}); }); };
  EXPECT_EQ(with_epsilon(-1e-5), "batchnorm::BatchNorm: epsilon is -1e-05; it must be finite and not negative");
  EXPECT_EQ(with_epsilon(std::numeric_limits<double>::infinity()),
            "batchnorm::BatchNorm: epsilon is inf; it must be finite and not negative");
  EXPECT_EQ(with_epsilon(std::numeric_limits<double>::quiet_NaN()),
            "batchnorm::BatchNorm: epsilon is nan; it must be finite and not negative");
  EXPECT_EQ(with_epsilon(0), "no error");
}

TEST(Errors, RunningAverage) {
  EXPECT_EQ(error_of([] { new_weight(-0.1); }), "batchnorm::new_weight: weight is -0.1; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] { new_weight(1.5); }), "batchnorm::new_weight: weight is 1.5; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] { old_weight(1.01); }), "batchnorm::old_weight: weight is 1.01; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] { debiased(-2); }), "batchnorm::debiased: weight is -2; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] { debiased(std::numeric_limits<double>::quiet_NaN()); }),
            "batchnorm::debiased: weight is nan; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] { windowed(0); }), "batchnorm::windowed: batches is 0; it must be at least 1");
  EXPECT_EQ(error_of([] {
              BatchNorm<float>(2, {.average = {RunningAverage::Rule::constant, 7}});
            }),
            "batchnorm::RunningStatistics: weight is 7; it must lie in [0, 1]");
  EXPECT_EQ(error_of([] {
              BatchNorm<float>(2, {.average = {RunningAverage::Rule::windowed, 0}});
            }),
            "batchnorm::RunningStatistics: window is 0; it must be at least 1");
  for (const double weight : {0.0, 1.0}) {
    EXPECT_EQ(error_of([=] { new_weight(weight), old_weight(weight), debiased(weight), windowed(1); }), "no error");
  }
}

TEST(Errors, TargetsThatDoNotExist) {
  EXPECT_EQ(error_of([] { set_target(static_cast<Target>(99)); }),
            "batchnorm::set_target: target is none of those that exist");
}

TEST(Errors, TensorsWithoutMemory) {
  const TensorMap nowhere(nullptr, 4, 3, 2, 5);
  Tensor x(4, 3, 2, 5), y;
  x.setRandom();
  BatchNorm<float> layer(3);
  const std::string text = " has no memory; its data() is null";
  EXPECT_EQ(error_of([&] { layer.forward(nowhere, y); }), "batchnorm::forward: x" + text);
  EXPECT_EQ(error_of([&] { layer.infer(nowhere, y); }), "batchnorm::infer: x" + text);
  EXPECT_EQ(error_of([&] { layer.forward(x, TensorMap(nullptr, 4, 3, 2, 5)); }), "batchnorm::forward: y" + text);
  layer.forward(x, y);
  EXPECT_EQ(error_of([&] { layer.backward(nowhere, x, y); }), "batchnorm::backward: x" + text);
  EXPECT_EQ(error_of([&] { layer.backward(x, nowhere, y); }), "batchnorm::backward: dy" + text);
  EXPECT_EQ(error_of([&] { layer.backward_parameters(x, nowhere); }), "batchnorm::backward_parameters: dy" + text);
  Moments moments;
  EXPECT_EQ(error_of([&] { collect_moments(nowhere, moments); }), "batchnorm::collect_moments: x" + text);
  EXPECT_EQ(error_of([&] { layer.forward_weighted(x, TensorMap(nullptr, 4, 1, 2, 5), y); }),
            "batchnorm::forward_weighted: weights" + text);
  TensorMap gdy(nullptr, 4, 3, 2, 5);
  Eigen::VectorXf ggamma;
  EXPECT_EQ(error_of([&] {
              double_backward(x, y, layer.moments(), layer.gamma(), Direction{x}, SecondGradients{y, gdy, ggamma});
            }),
            "batchnorm::double_backward: gradients.dy" + text);
}

// ---- Calls of a layer.

/// Everything a layer shows.
struct State {
  explicit State(const BatchNorm<float>& layer)
      : gamma(layer.gamma()),
        beta(layer.beta()),
        gamma_gradient(layer.gamma_gradient()),
        beta_gradient(layer.beta_gradient()),
        running_mean(layer.running_mean()),
        running_var(layer.running_var()),
        mean(layer.moments().mean),
        m2(layer.moments().m2),
        batches_seen(layer.batches_seen()),
        training(layer.training()) {}

  auto all() const {
    return std::tie(gamma, beta, gamma_gradient, beta_gradient, running_mean, running_var, mean, m2, batches_seen,
                    training);
  }
  friend bool operator==(const State& a, const State& b) { return a.all() == b.all(); }

  Eigen::VectorXf gamma, beta, gamma_gradient, beta_gradient;
  Eigen::VectorXd running_mean, running_var, mean, m2;
  Index batches_seen;
  bool training;
};

/// A layer in mid-training, for x of 4x3x2x5 with 3 channels.
class LayerErrors : public testing::Test {
 protected:
  LayerErrors() {
    layer.forward(x, y);
    layer.backward(x, dy, dx);
    expected_dx = values(dx);
  }

  static Tensor random(Index n, Index c, Index h, Index w) {
    Tensor t(n, c, h, w);
    t.setRandom();
    return t;
  }

  static Flat<float> values(const Tensor& t) { return Eigen::Map<const Flat<float>>(t.data(), t.size()); }

  /// That `call` ends in the error `text` and leaves the layer, its outputs and its last forward as they were.
  template <class Call>
  void expect_error(const std::string& text, const Call& call) {
    SCOPED_TRACE(text);
    const State before(layer);
    const Flat<float> y_before = values(y), dx_before = values(dx);
    EXPECT_EQ(error_of(call), text);
    EXPECT_TRUE(State(layer) == before);
    EXPECT_TRUE(same_bits(values(y), y_before));
    EXPECT_TRUE(same_bits(values(dx), dx_before));
  }

  /// That backward still differentiates the first forward.
  void expect_last_forward_is_kept() {
    layer.backward(x, dy, dx);
    EXPECT_TRUE(same_bits(values(dx), expected_dx));
  }

  Tensor x = random(4, 3, 2, 5), dy = random(4, 3, 2, 5), y, dx;
  BatchNorm<float> layer{3};
  Flat<float> expected_dx;
};

TEST_F(LayerErrors, NumberOfChannels) {
  const Tensor wrong = random(8, 32, 7, 7);
  expect_error("batchnorm::forward: x is 8x32x7x7; axis 1 must have 3 channels", [&] { layer.forward(wrong, y); });
  expect_error("batchnorm::infer: x is 8x32x7x7; axis 1 must have 3 channels", [&] { layer.infer(wrong, y); });
  layer.eval();
  expect_error("batchnorm::forward: x is 8x32x7x7; axis 1 must have 3 channels", [&] { layer.forward(wrong, y); });
  expect_last_forward_is_kept();
  Tensor output;
  EXPECT_EQ(error_of([&] { BatchNorm<float>(3, {.axis = -1}).forward(x, output); }),
            "batchnorm::forward: x is 4x3x2x5; axis 3 must have 3 channels");
}

TEST_F(LayerErrors, Axis) {
  for (const int axis : {4, -5}) {
    const std::string what = "axis is " + std::to_string(axis) + "; x has 4 axes";
    layer = BatchNorm<float>(3, {.axis = axis});
    expect_error("batchnorm::forward: " + what, [&] { layer.forward(x, y); });
    expect_error("batchnorm::infer: " + what, [&] { layer.infer(x, y); });
    const Options options{.axis = axis};
    Moments moments(3);
    GradientSums sums(3);
    const Eigen::VectorXf absent;
    expect_error("batchnorm::shape_of: " + what, [&] { shape_of(x, axis); });
    expect_error("batchnorm::collect_moments: " + what, [&] { collect_moments(x, moments, options); });
    expect_error("batchnorm::normalize: " + what, [&] { normalize(x, moments, absent, absent, y, options); });
    expect_error("batchnorm::collect_gradients: " + what, [&] { collect_gradients(x, dy, moments, sums, options); });
    expect_error("batchnorm::input_gradient: " + what,
                 [&] { input_gradient(x, dy, moments, absent, sums, dx, options); });
  }
}

TEST_F(LayerErrors, OutputsThatDoNotFit) {
  Tensor other = random(4, 3, 5, 2);
  TensorMap map(other.data(), other.dimensions());
  const Flat<float> before = values(other);
  expect_error("batchnorm::forward: y is 4x3x5x2; x is 4x3x2x5", [&] { layer.forward(x, map); });
  expect_error("batchnorm::infer: y is 4x3x5x2; x is 4x3x2x5", [&] { layer.infer(x, map); });
  expect_error("batchnorm::backward: dx is 4x3x5x2; x is 4x3x2x5", [&] { layer.backward(x, dy, map); });
  EXPECT_TRUE(same_bits(values(other), before));
  expect_last_forward_is_kept();
}

TEST_F(LayerErrors, MatricesThatDoNotFit) {
  const Matrix table = Matrix::Random(4, 3);
  Eigen::Matrix<float, 4, 2, Eigen::RowMajor> fixed;
  Eigen::Matrix<float, Eigen::Dynamic, 2, Eigen::RowMajor> half_fixed(7, 2);
  Matrix frame = Matrix::Random(10, 10);
  expect_error("batchnorm::forward: y is 4x2; x is 4x3", [&] { layer.forward(table, fixed); });
  expect_error("batchnorm::forward: y is 7x2; x is 4x3", [&] { layer.forward(table, half_fixed); });
  expect_error("batchnorm::forward: y is 4x4; x is 4x3", [&] { layer.forward(table, frame.topLeftCorner(4, 4)); });
  EXPECT_EQ(half_fixed.rows(), 7);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor, 3, 3> small;
  expect_error("batchnorm::forward: y is 0x0; x is 4x3", [&] { layer.forward(table, small); });
  expect_last_forward_is_kept();
}

TEST_F(LayerErrors, OutputGradientOfAnotherShape) {
  const Tensor wrong = random(4, 3, 5, 2);
  expect_error("batchnorm::backward: dy is 4x3x5x2; x is 4x3x2x5", [&] { layer.backward(x, wrong, dx); });
  expect_last_forward_is_kept();
}

TEST_F(LayerErrors, ParametersOfAnotherLength) {
  const std::string wanted = "it must have one entry for each of 3 channels";
  const auto gamma = layer.gamma(), beta = layer.beta(), gamma_gradient = layer.gamma_gradient(),
             beta_gradient = layer.beta_gradient();
  const auto running_mean = layer.running_mean(), running_var = layer.running_var();

  layer.gamma().setZero(5);
  expect_error("batchnorm::forward: gamma has length 5; " + wanted, [&] { layer.forward(x, y); });
  expect_error("batchnorm::infer: gamma has length 5; " + wanted, [&] { layer.infer(x, y); });
  expect_error("batchnorm::backward: gamma has length 5; " + wanted, [&] { layer.backward(x, dy, dx); });
  layer.gamma().resize(0);
  expect_error("batchnorm::forward: gamma has length 0; " + wanted, [&] { layer.forward(x, y); });
  layer.gamma() = gamma;

  layer.beta().setZero(2);
  expect_error("batchnorm::forward: beta has length 2; " + wanted, [&] { layer.forward(x, y); });
  expect_error("batchnorm::infer: beta has length 2; " + wanted, [&] { layer.infer(x, y); });
  layer.beta() = beta;

  layer.gamma_gradient().setZero(4);
  expect_error("batchnorm::backward: gamma_gradient has length 4; " + wanted, [&] { layer.backward(x, dy, dx); });
  layer.gamma_gradient() = gamma_gradient;

  layer.beta_gradient().setZero(0);
  expect_error("batchnorm::backward: beta_gradient has length 0; " + wanted, [&] { layer.backward(x, dy, dx); });
  layer.beta_gradient() = beta_gradient;

  layer.running_mean().setZero(2);
  expect_error("batchnorm::forward: running_mean has length 2; " + wanted, [&] { layer.forward(x, y); });
  expect_error("batchnorm::infer: running_mean has length 2; " + wanted, [&] { layer.infer(x, y); });
  layer.running_mean() = running_mean;

  layer.running_var().setZero(9);
  expect_error("batchnorm::forward: running_var has length 9; " + wanted, [&] { layer.forward(x, y); });
  expect_error("batchnorm::infer: running_var has length 9; " + wanted, [&] { layer.infer(x, y); });
  layer.running_var() = running_var;
  expect_last_forward_is_kept();
}

TEST_F(LayerErrors, NegativeRunningVariance) {
  layer.running_var()[2] = -1e-9;
  expect_error("batchnorm::infer: running_var[2] is negative; it must be at least 0", [&] { layer.infer(x, y); });
  layer.eval();
  expect_error("batchnorm::forward: running_var[2] is negative; it must be at least 0", [&] { layer.forward(x, y); });
  layer.train();
  EXPECT_EQ(error_of([&] { layer.forward(x, y); }), "no error");
}

TEST_F(LayerErrors, OneValuePerChannel) {
  const Tensor single = random(1, 3, 1, 1);
  expect_error(
      "batchnorm::forward: x has one value per channel; statistics of a batch need at least two (or "
      "SingleValue::allow)",
      [&] { layer.forward(single, y); });
  expect_last_forward_is_kept();
  Tensor output;
  EXPECT_EQ(error_of([&] { layer.infer(single, output); }), "no error");
}

TEST_F(LayerErrors, BackwardWithoutForward) {
  layer = BatchNorm<float>(3);
  const std::string text = "batchnorm::backward: there has been no forward";
  expect_error(text, [&] { layer.backward(x, dy, dx); });
  Tensor output;
  layer.infer(x, output);
  expect_error(text, [&] { layer.backward(x, dy, dx); });
  layer.forward(x, output);
  const BatchNorm<float> elsewhere = std::move(layer);
  expect_error(text, [&] { layer.backward(x, dy, dx); });
}

TEST_F(LayerErrors, BackwardWithXOfAnotherShape) {
  const Tensor wrong = random(8, 3, 2, 5);
  expect_error("batchnorm::backward: x is 8x3x2x5; in the last forward it was 4x3x2x5",
               [&] { layer.backward(wrong, wrong, dx); });
  const Tensor same_size = random(4, 3, 5, 2);
  expect_error("batchnorm::backward: x is 4x3x5x2; in the last forward it was 4x3x2x5",
               [&] { layer.backward(same_size, same_size, dx); });
  expect_last_forward_is_kept();
}

TEST_F(LayerErrors, OutputsThatOverlapInputs) {
  Flat<float> memory = Flat<float>::Random(3 * x.size());
  const Flat<float> before = memory;
  const auto at = [&](Index offset) { return TensorMap(memory.data() + offset, x.dimensions()); };
  const Index size = x.size();
  for (const Index offset : {Index(1), Index(30), size - 1}) {
    expect_error("batchnorm::forward: y overlaps x; it must be the same memory or lie apart",
                 [&] { layer.forward(at(size), at(size + offset)); });
    expect_error("batchnorm::forward: y overlaps x; it must be the same memory or lie apart",
                 [&] { layer.forward(at(size), at(size - offset)); });
    expect_error("batchnorm::infer: y overlaps x; it must be the same memory or lie apart",
                 [&] { layer.infer(at(size), at(size + offset)); });
    expect_error("batchnorm::backward: dx overlaps x; it must be the same memory or lie apart",
                 [&] { layer.backward(at(size), dy, at(size - offset)); });
    expect_error("batchnorm::backward: dx overlaps dy; it must be the same memory or lie apart",
                 [&] { layer.backward(x, at(size), at(size + offset)); });
  }
  EXPECT_TRUE(same_bits(memory, before));
  expect_last_forward_is_kept();
  EXPECT_EQ(error_of([&] { layer.forward(at(size), at(0)); }), "no error");
  EXPECT_EQ(error_of([&] { layer.forward(at(size), at(2 * size)); }), "no error");
}

TEST_F(LayerErrors, BlocksThatOverlap) {
  Matrix frame = Matrix::Random(10, 10);
  const Matrix before = frame;
  const auto block = [&](Index row, Index column) { return frame.block(row, column, 4, 3); };
  const std::string text = "batchnorm::infer: y overlaps x; it must be the same memory or lie apart";
  for (const auto& place : {std::pair<Index, Index>{0, 1}, {0, 2}, {1, 0}, {1, 2}, {3, 2}}) {
    const Index row = place.first, column = place.second;
    expect_error(text, [&] { layer.infer(block(0, 0), block(row, column)); });
    expect_error(text, [&] { layer.infer(block(row, column), block(0, 0)); });
  }
  Eigen::Map<Matrix, Eigen::Unaligned, Eigen::OuterStride<>> other_stride(frame.data(), 4, 3, Eigen::OuterStride<>(5));
  expect_error(text, [&] { layer.infer(block(0, 0), other_stride); });
  EXPECT_EQ(frame, before);

  for (const auto& place : {std::pair<Index, Index>{0, 3}, {0, 7}, {1, 3}, {4, 0}, {3, 3}}) {
    const Index row = place.first, column = place.second;
    EXPECT_EQ(error_of([&] { layer.infer(block(0, 0), block(row, column)); }), "no error");
    EXPECT_EQ(error_of([&] { layer.infer(block(row, column), block(0, 0)); }), "no error");
  }
  EXPECT_EQ(error_of([&] { layer.infer(block(0, 0), block(0, 0)); }), "no error");
}

TEST_F(LayerErrors, BatchesSeen) {
  expect_error("batchnorm::set_batches_seen: batches is -1; it must not be negative",
               [&] { layer.set_batches_seen(-1); });
}

// ---- The phases, and what merges.

TEST_F(LayerErrors, Phases) {
  const std::string wanted = "it must have one entry for each of 3 channels";
  const Eigen::VectorXf absent, long_vector = Eigen::VectorXf::Ones(4);
  Moments moments(3), long_moments(4), ragged(3);
  GradientSums sums(3), long_sums(4);
  collect_moments(x, moments);
  collect_gradients(x, dy, moments, sums);
  const Tensor wrong = random(4, 3, 5, 2);
  const std::string f = "batchnorm::normalize: ", g = "batchnorm::collect_gradients: ",
                    h = "batchnorm::input_gradient: ";

  expect_error(f + "moments.mean has length 4; " + wanted, [&] { normalize(x, long_moments, absent, absent, y); });
  expect_error(f + "gamma has length 4; " + wanted, [&] { normalize(x, moments, long_vector, absent, y); });
  expect_error(f + "beta has length 4; " + wanted, [&] { normalize(x, moments, absent, long_vector, y); });
  expect_error(f + "epsilon is -1; it must be finite and not negative",
               [&] { normalize(x, moments, absent, absent, y, {.epsilon = -1}); });
  expect_error(f + "moments hold no values", [&] { normalize(x, Moments(3), absent, absent, y); });
  Moments uncounted(3);
  uncounted.count = -1;
  expect_error(f + "moments.count is negative or not finite", [&] { normalize(x, uncounted, absent, absent, y); });
  Moments negative = moments;
  negative.m2[1] = -1;
  expect_error(f + "moments.m2[1] is negative; it must be at least 0",
               [&] { normalize(x, negative, absent, absent, y); });

  expect_error(g + "moments.mean has length 4; " + wanted, [&] { collect_gradients(x, dy, long_moments, sums); });
  expect_error(g + "dy is 4x3x5x2; x is 4x3x2x5", [&] { collect_gradients(x, wrong, moments, sums); });

  expect_error(h + "moments.mean has length 4; " + wanted,
               [&] { input_gradient(x, dy, long_moments, absent, sums, dx); });
  expect_error(h + "gamma has length 4; " + wanted, [&] { input_gradient(x, dy, moments, long_vector, sums, dx); });
  expect_error(h + "sums.dy has length 4; " + wanted, [&] { input_gradient(x, dy, moments, absent, long_sums, dx); });
  expect_error(h + "dy is 4x3x5x2; x is 4x3x2x5", [&] { input_gradient(x, wrong, moments, absent, sums, dx); });
  expect_error(h + "epsilon is -1; it must be finite and not negative",
               [&] { input_gradient(x, dy, moments, absent, sums, dx, {.epsilon = -1}); });
}

TEST(Errors, MergeAndUpdate) {
  const std::string wanted = " has length 4; it must have one entry for each of 3 channels";
  Moments moments(3), other(4);
  other.count = 1;
  EXPECT_EQ(error_of([&] { moments.merge(other); }), "batchnorm::merge: other.mean" + wanted);
  other.mean.setZero(3);
  EXPECT_EQ(error_of([&] { moments.merge(other); }), "batchnorm::merge: other.m2" + wanted);
  EXPECT_EQ(moments.channels(), 3);
  EXPECT_EQ(moments.count, 0);
  Moments none;
  EXPECT_EQ(error_of([&] { none.merge(other); }), "batchnorm::merge: other.m2" + wanted);
  EXPECT_EQ(none.channels(), 0);
  Moments negative(3);
  for (const double count : {-3.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    negative.count = count;
    EXPECT_EQ(error_of([&] { moments.merge(negative); }), "batchnorm::merge: other.count is negative or not finite");
    EXPECT_EQ(error_of([&] { negative.merge(moments); }), "batchnorm::merge: count is negative or not finite");
  }
  EXPECT_EQ(moments.count, 0);
  RunningStatistics running(3);
  EXPECT_EQ(error_of([&] { running.update(other); }), "batchnorm::update: moments.m2" + wanted);
  other.mean.setZero(4);
  EXPECT_EQ(error_of([&] { running.update(other); }), "batchnorm::update: moments.mean" + wanted);
  moments.count = -4;
  EXPECT_EQ(error_of([&] { running.update(moments); }), "batchnorm::update: moments.count is negative or not finite");
  EXPECT_EQ(running.mean, Eigen::VectorXd::Zero(3));
  EXPECT_EQ(running.batches_seen, 0);
}

TEST(Errors, MergeOfGradientSums) {
  const std::string wanted = " has length 4; it must have one entry for each of 3 channels";
  GradientSums sums(3), other(4);
  EXPECT_EQ(error_of([&] { sums.merge(other); }), "batchnorm::merge: other.dy" + wanted);
  other.dy.setZero(3);
  EXPECT_EQ(error_of([&] { sums.merge(other); }), "batchnorm::merge: other.dy_centered" + wanted);
  EXPECT_EQ(sums.dy, Eigen::VectorXd::Zero(3));
  EXPECT_EQ(error_of([] { GradientSums(3).gamma_gradient(Moments(2), 0); }),
            "batchnorm::gamma_gradient: moments.m2 has length 2; it must have one entry for each of 3 channels");
  EXPECT_EQ(error_of([] { GradientSums(3).gamma_gradient(Moments(3), -5); }),
            "batchnorm::gamma_gradient: epsilon is -5; it must be finite and not negative");
  Moments uncounted(3);
  uncounted.count = -1;
  EXPECT_EQ(error_of([&] { GradientSums(3).gamma_gradient(uncounted, 0); }),
            "batchnorm::gamma_gradient: moments.count is negative or not finite");
  GradientSums none, ones(3);
  EXPECT_EQ(error_of([&] { none.merge(other); }), "batchnorm::merge: other.dy_centered" + wanted);
  EXPECT_EQ(none.channels(), 0);
  ones.dy.setOnes();
  none.merge(ones);
  EXPECT_EQ(none.dy, Eigen::VectorXd::Ones(3));
}

TEST(Errors, LinesThatShareMemory) {
  using Lines = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
  Matrix memory = Matrix::Random(6, 3);
  const Matrix before = memory, x = Matrix::Random(6, 3);
  BatchNorm<float> layer(3);
  for (const Index stride : {0, 1, -2}) {
    Lines y(memory.data() + (stride < 0 ? 12 : 0), 6, 3, Eigen::OuterStride<>(stride));
    EXPECT_EQ(error_of([&] { layer.forward(x, y); }), "batchnorm::forward: y has outer stride " +
                                                          std::to_string(stride) +
                                                          "; it must be at least the 3 values of a line");
    Matrix copied, direct;
    layer.forward(Matrix(y), copied);
    layer.forward(y, direct);  // as an input they are welcome
    EXPECT_TRUE(direct.isApprox(copied, 1e-6f));
  }
  EXPECT_EQ(memory, before);
}

TEST(Errors, OverlapWithLinesInReverseOrder) {
  Matrix memory = Matrix::Random(6, 3);
  const Matrix before = memory;
  const Eigen::Map<Matrix, 0, Eigen::OuterStride<>> reversed(memory.data() + 15, 6, 3, Eigen::OuterStride<>(-3));
  Eigen::Map<Matrix> y(memory.data(), 6, 3);
  BatchNorm<float> layer(3);
  EXPECT_EQ(error_of([&] { layer.forward(reversed, y); }),
            "batchnorm::forward: y overlaps x; it must be the same memory or lie apart");
  EXPECT_EQ(memory, before);
}

}  // namespace
}  // namespace batchnorm::test
