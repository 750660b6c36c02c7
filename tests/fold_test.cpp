// A layer folded into its neighbours answers as it did before.
#include "step.hpp"

namespace batchnorm::test {
namespace {

template <class T>
BatchNorm<T> trained_layer(Index channels, const Options& options = {}) {
  Random random(7);
  BatchNorm<T> layer(channels, options);
  if (layer.gamma().size() > 0) layer.gamma() = random.vector<T>(channels, 1, 0.5);
  if (layer.beta().size() > 0) layer.beta() = random.vector<T>(channels);
  layer.running_mean() = random.vector<double>(channels, 1, 2);
  layer.running_var() = random.vector<double>(channels).cwiseAbs();
  return layer;
}

/// The outputs of any linear layer: each weight meets one input, and belongs to the output that `channel_of` says.
template <class T, class Weights, class Channel>
Values linear(const Weights& weights, const Vector<T>& bias, const Channel& channel_of) {
  Values out = bias.size() == 0 ? Values(Values::Zero(6)) : Values(bias.template cast<Real>().array());
  Random inputs(3);
  for (Index i = 0; i < weights.dimension(0); ++i)
    for (Index j = 0; j < weights.dimension(1); ++j)
      for (Index k = 0; k < weights.dimension(2); ++k) {
        out[channel_of(i, j, k)] += static_cast<Real>(weights(i, j, k)) * static_cast<Real>(inputs.normal());
      }
  return out;
}

template <class T>
Values normalized(const BatchNorm<T>& layer, const Values& x) {
  const Values inv_std = (layer.running_var().template cast<Real>().array() + Real(layer.options().epsilon)).rsqrt();
  return (x - layer.running_mean().template cast<Real>().array()) * inv_std *
             layer.gamma().template cast<Real>().array() +
         layer.beta().template cast<Real>().array();
}

/// Six output channels.
template <class T, int Order, class Channel>
void expect_folds(std::array<Index, 3> dims, const WeightLayout& layout, const Channel& channel_of, bool has_bias) {
  const BatchNorm<T> layer = trained_layer<T>(6);
  Eigen::Tensor<T, 3, Order> weights(dims[0], dims[1], dims[2]);
  Random random(5);
  for (Index k = 0; k < weights.size(); ++k) weights.data()[k] = static_cast<T>(random.normal());
  Vector<T> bias = has_bias ? random.vector<T>(6) : Vector<T>();
  const Values expected = normalized(layer, linear<T>(weights, bias, channel_of));
  fold_into_previous(scale_shift(layer), weights, bias, layout);
  const Values actual = linear<T>(weights, bias, channel_of);
  const Real tolerance = std::is_same_v<T, float> ? 1e-6L : 1e-14L;
  EXPECT_LE((actual - expected).abs().maxCoeff() / expected.abs().maxCoeff(), tolerance);
}

template <class T, int Order>
void expect_folds_into_every_layout() {
  for (const bool has_bias : {false, true}) {
    expect_folds<T, Order>(
        {6, 4, 5}, {}, [](Index o, Index, Index) { return o; }, has_bias);
    expect_folds<T, Order>(
        {5, 4, 6}, {.output_axis = -1, .input_axis = -2}, [](Index, Index, Index o) { return o; }, has_bias);
    // Transposed: inputs 0 and 1 make outputs 0 to 2, inputs 2 and 3 the rest.
    expect_folds<T, Order>(
        {4, 3, 5}, {.output_axis = 1, .input_axis = 0, .groups = 2},
        [](Index i, Index o, Index) { return i < 2 ? o : 3 + o; }, has_bias);
    // Depthwise: two outputs of each of three channels.
    expect_folds<T, Order>(
        {5, 3, 2}, {.output_axis = -1, .input_axis = -2, .groups = 3},
        [](Index, Index c, Index m) { return 2 * c + m; }, has_bias);
  }
}

TEST(Fold, IntoThePreviousLayer) {
  expect_folds_into_every_layout<float, Eigen::RowMajor>();
  expect_folds_into_every_layout<float, Eigen::ColMajor>();
  expect_folds_into_every_layout<double, Eigen::RowMajor>();
}

TEST(Fold, IntoAMatrixWithAnOuterStride) {
  const BatchNorm<double> layer = trained_layer<double>(3);
  Eigen::MatrixXd memory = Eigen::MatrixXd::Random(5, 4);
  const Eigen::MatrixXd before = memory;
  auto weights = memory.topRows(3);
  Eigen::VectorXd bias;
  const ScaleShift folded = scale_shift(layer);
  fold_into_previous(folded, weights, bias);
  EXPECT_TRUE(weights.isApprox(folded.scale.asDiagonal() * before.topRows(3), 1e-15));
  EXPECT_EQ(memory.bottomRows(2), before.bottomRows(2));
  EXPECT_EQ(bias, folded.shift);
}

TEST(Fold, IntoTheNextLayer) {
  const BatchNorm<double> layer = trained_layer<double>(4);
  const Eigen::VectorXd x = Eigen::VectorXd::Random(4);
  const Eigen::VectorXd y = normalized(layer, x.cast<Real>().array()).cast<double>();
  Eigen::MatrixXd weights = Eigen::MatrixXd::Random(3, 4), transposed = weights.transpose();
  Eigen::VectorXd bias = Eigen::VectorXd::Random(3), no_bias;
  const Eigen::VectorXd expected = weights * y;
  const Eigen::VectorXd expected_with_bias = expected + bias;
  fold_into_next(scale_shift(layer), weights, bias);
  EXPECT_TRUE((weights * x + bias).isApprox(expected_with_bias, 1e-14));
  fold_into_next(scale_shift(layer), transposed, no_bias, {.output_axis = 1, .input_axis = 0});
  EXPECT_TRUE((transposed.transpose() * x + no_bias).isApprox(expected, 1e-14));
}

TEST(Fold, ScaleAndShiftAreInference) {
  for (const Affine affine : {Affine::scale_and_shift, Affine::scale, Affine::shift, Affine::none}) {
    const BatchNorm<double> layer = trained_layer<double>(5, {.affine = affine});
    const ScaleShift folded = scale_shift(layer);
    Eigen::MatrixXd x = Eigen::MatrixXd::Random(7, 5), y;
    layer.infer(x, y);
    const Eigen::MatrixXd expected = (x * folded.scale.asDiagonal()).rowwise() + folded.shift.transpose();
    EXPECT_TRUE(y.isApprox(expected, 1e-14));
  }
}

TEST(Fold, Requantization) {
  const ScaleShift folded{Eigen::Vector2d(2, -1), Eigen::Vector2d(0.5, 3)};
  const Eigen::Vector2d sums(100, -50), sum_scale(0.01, 0.02);
  const ScaleShift q = requantization(folded, sum_scale, 0.1, 5);
  for (Index c = 0; c < 2; ++c) {
    const double value = folded.scale[c] * (sum_scale[c] * sums[c]) + folded.shift[c];
    EXPECT_NEAR(0.1 * (q.scale[c] * sums[c] + q.shift[c] - 5), value, 1e-14);
  }
  const ScaleShift same = requantization(folded, Vector<double>::Constant(1, 1), 1);
  EXPECT_EQ(same.scale, folded.scale);
  EXPECT_EQ(same.shift, folded.shift);
}

TEST(Fold, Errors) {
  BatchNorm<float> layer = trained_layer<float>(6);
  const ScaleShift folded = scale_shift(layer);
  Eigen::MatrixXf weights = Eigen::MatrixXf::Random(6, 4);
  const Eigen::MatrixXf before = weights;
  Eigen::VectorXf bias, wrong_bias = Eigen::VectorXf::Zero(5);
  const std::string f = "batchnorm::fold_into_previous: ", g = "batchnorm::fold_into_next: ";
  EXPECT_EQ(error_of([&] { fold_into_previous(folded, weights, bias, {.output_axis = 1, .input_axis = 0}); }),
            f + "weights have 4 outputs; scale and shift have 6 entries");
  EXPECT_EQ(error_of([&] { fold_into_previous(folded, weights, wrong_bias); }),
            f + "bias has length 5; it must have one entry for each of 6 channels");
  EXPECT_EQ(error_of([&] { fold_into_previous(folded, weights, bias, {.output_axis = 2}); }),
            f + "output_axis is 2; the weights have 2 axes");
  EXPECT_EQ(error_of([&] { fold_into_next(folded, weights, bias, {.input_axis = -3}); }),
            g + "input_axis is -3; the weights have 2 axes");
  EXPECT_EQ(error_of([&] { fold_into_previous(folded, weights, bias, {.groups = 3}); }),
            f + "groups is 3; it must divide 4 inputs");
  EXPECT_EQ(error_of([&] { fold_into_next(folded, weights, bias); }),
            g + "weights have 4 inputs; scale and shift have 6 entries");
  EXPECT_EQ(error_of([&] { fold_into_next(folded, weights, bias, {.input_axis = 0}); }),
            g + "output_axis and input_axis are the same");
  EXPECT_EQ(error_of([&] { fold_into_next(folded, weights, wrong_bias, {.output_axis = 1, .input_axis = 0}); }),
            g + "bias has length 5; the weights have 4 outputs");
  Eigen::Map<Eigen::MatrixXf> nowhere(nullptr, 6, 4);
  EXPECT_EQ(error_of([&] { fold_into_previous(folded, nowhere, bias); }),
            f + "weights has no memory; its data() is null");
  EXPECT_EQ(weights, before);
  EXPECT_EQ(bias.size(), 0);
  EXPECT_EQ(error_of([&] { requantization(folded, Vector<double>::Ones(6), 0); }),
            "batchnorm::requantization: output_scale is 0; it must be positive and finite");
  EXPECT_EQ(error_of([&] { requantization(folded, Vector<double>::Constant(6, -1), 1); }),
            "batchnorm::requantization: a sum_scale is -1; it must be positive and finite");
  EXPECT_EQ(error_of([&] { requantization(folded, Vector<double>::Ones(2), 1); }),
            "batchnorm::requantization: sum_scale has length 2; it must have one entry, or one for each of 6 channels");
  layer.running_var()[4] = -1;
  EXPECT_EQ(error_of([&] { scale_shift(layer); }),
            "batchnorm::scale_shift: running_var[4] is negative; it must be at least 0");
  EXPECT_EQ(error_of([] { scale_shift(BatchNorm<float>(2, {.average = none()})); }),
            "batchnorm::scale_shift: the layer has no running statistics");
}

}  // namespace
}  // namespace batchnorm::test
