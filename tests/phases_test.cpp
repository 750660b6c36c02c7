// The four phases by themselves, and what merges between them.
#include "step.hpp"

namespace batchnorm::test {
namespace {

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

const Layout table{{611, 5}, Order::row_major, 1};

struct Table {
  Problem<float> problem = random_problem<float>(table);
  RowMatrix x = problem.x.matrix().reshaped<Eigen::RowMajor>(611, 5);
  RowMatrix dy = problem.dy.matrix().reshaped<Eigen::RowMajor>(611, 5);
  oracle::Statistics batch = oracle::statistics(table, problem.x.cast<Real>());
};

void expect_moments(const Moments& moments, const oracle::Statistics& expected, double count) {
  EXPECT_EQ(moments.count, count);
  EXPECT_LE(error(moments.mean, mean_of(expected)), tolerance<float>(Quantity::batch_statistic));
  EXPECT_LE(error(moments.var(), var_of(expected)), tolerance<float>(Quantity::batch_statistic));
  EXPECT_TRUE(moments.m2.isApprox(moments.var() * count, 1e-15));
  EXPECT_TRUE(moments.unbiased_var().isApprox(moments.m2 / (count - 1), 1e-15));
}

TEST(Moments, StartWithoutValues) {
  const Moments moments(3);
  EXPECT_EQ(moments.count, 0);
  EXPECT_EQ(moments.channels(), 3);
  EXPECT_EQ(moments.mean, Eigen::VectorXd::Zero(3));
  EXPECT_EQ(moments.m2, Eigen::VectorXd::Zero(3));
}

TEST(Moments, OfPartsMergeIntoThoseOfTheWhole) {
  const Table t;
  for (const std::vector<Index>& cuts :
       {std::vector<Index>{0, 300, 611}, {0, 1, 2, 611}, {0, 0, 610, 610, 611}, {0, 50, 100, 150, 200, 400, 611}}) {
    Moments merged(5);
    for (std::size_t part = 0; part + 1 < cuts.size(); ++part) {
      Moments moments(5);
      collect_moments(t.x.middleRows(cuts[part], cuts[part + 1] - cuts[part]), moments,
                      {.single_value = SingleValue::allow});
      merged.merge(moments);
    }
    expect_moments(merged, t.batch, 611);
  }
}

TEST(Moments, MergeWithoutValuesIsNeutral) {
  const Table t;
  Moments moments(5);
  collect_moments(t.x, moments);
  Moments from_left = moments, from_right(5);
  from_left.merge(Moments(5));
  from_right.merge(moments);
  for (const Moments& merged : {from_left, from_right}) {
    EXPECT_EQ(merged.count, moments.count);
    EXPECT_EQ(merged.mean, moments.mean);
    EXPECT_EQ(merged.m2, moments.m2);
  }
}

TEST(Moments, MergeKeepsTheDigitsFarFromZero) {
  Moments a(1), b(1);
  a.count = 3;
  a.mean[0] = 1e9;
  a.m2[0] = 2;
  b.count = 1;
  b.mean[0] = 1e9 + 4;
  a.merge(b);
  EXPECT_EQ(a.count, 4);
  EXPECT_EQ(a.mean[0], 1e9 + 1);
  EXPECT_EQ(a.m2[0], 2 + 16 * 3.0 / 4);
}

TEST(Phases, CollectMomentsForgetsWhatWasThere) {
  const Table t;
  Moments moments(5), again(5);
  collect_moments(t.x, moments);
  again.count = 99;
  again.mean.setConstant(7);
  again.m2.setConstant(7);
  collect_moments(t.x, again);
  EXPECT_EQ(again.count, moments.count);
  EXPECT_EQ(again.mean, moments.mean);
  EXPECT_EQ(again.m2, moments.m2);
}

TEST(Phases, EmptyGammaIsOneAndEmptyBetaZero) {
  const Table t;
  Moments moments(5);
  collect_moments(t.x, moments);
  const Eigen::VectorXf ones = Eigen::VectorXf::Ones(5), zeros = Eigen::VectorXf::Zero(5), absent;
  RowMatrix y, expected;
  normalize(t.x, moments, ones, zeros, expected);
  normalize(t.x, moments, absent, absent, y);
  EXPECT_EQ(y, expected);

  GradientSums sums(5);
  collect_gradients(t.x, t.dy, moments, sums);
  RowMatrix dx, expected_dx;
  input_gradient(t.x, t.dy, moments, ones, sums, expected_dx);
  input_gradient(t.x, t.dy, moments, absent, sums, dx);
  EXPECT_EQ(dx, expected_dx);
}

/// Two halves of a batch that know each other's moments and sums alone: synchronized batch normalization.
TEST(Phases, HalvesWithMergedStatisticsAnswerLikeTheWhole) {
  const Table t;
  const Index cut = 200;
  const auto halves = [&](RowMatrix& m) { return std::array{m.topRows(cut), m.bottomRows(611 - cut)}; };
  Table parts = t;
  auto x = halves(parts.x), dy = halves(parts.dy);
  RowMatrix y(611, 5), dx(611, 5);
  auto y_half = halves(y), dx_half = halves(dx);
  const Eigen::VectorXf &gamma = t.problem.gamma, &beta = t.problem.beta;

  Moments moments(5);
  for (const auto& half : x) {
    Moments of_half(5);
    collect_moments(half, of_half);
    moments.merge(of_half);
  }
  for (std::size_t k = 0; k < 2; ++k) normalize(x[k], moments, gamma, beta, y_half[k]);
  GradientSums sums(5);
  for (std::size_t k = 0; k < 2; ++k) {
    GradientSums of_half(5);
    collect_gradients(x[k], dy[k], moments, of_half);
    sums.merge(of_half);
  }
  for (std::size_t k = 0; k < 2; ++k) input_gradient(x[k], dy[k], moments, gamma, sums, dx_half[k]);

  const auto real = [](const auto& values) { return Values(values.array().template cast<Real>()); };
  const Values real_x = real(t.problem.x), real_dy = real(t.problem.dy);
  const Real epsilon = static_cast<Real>(Options{}.epsilon);
  const auto expected = oracle::forward(table, real_x, t.batch, real(gamma), real(beta), epsilon);
  const auto gradients =
      oracle::backward(table, real_x, real_dy, t.batch, real(gamma), epsilon, oracle::Statistic::of_the_batch);
  EXPECT_LE(error(y.reshaped<Eigen::RowMajor>(), expected), tolerance<float>(Quantity::tensor));
  EXPECT_LE(error(dx.reshaped<Eigen::RowMajor>(), gradients.dx), tolerance<float>(Quantity::tensor));
  EXPECT_LE(error(sums.dy, gradients.dbeta), tolerance<float>(Quantity::parameter_gradient));
  const Eigen::VectorXd dgamma = sums.dy_centered.array() / (moments.var().array() + Options{}.epsilon).sqrt();
  EXPECT_LE(error(dgamma, gradients.dgamma), tolerance<float>(Quantity::parameter_gradient));
}

TEST(Phases, AnswerTheSameWithAWorkspace) {
  const Table t;
  Workspace<float> workspace;
  for (int repetition = 0; repetition < 2; ++repetition) {
    Moments moments(5), expected_moments(5);
    collect_moments(t.x, expected_moments);
    collect_moments(t.x, moments, {}, &workspace);
    EXPECT_EQ(moments.mean, expected_moments.mean);
    EXPECT_EQ(moments.m2, expected_moments.m2);
    RowMatrix y, expected_y;
    normalize(t.x, moments, t.problem.gamma, t.problem.beta, expected_y);
    normalize(t.x, moments, t.problem.gamma, t.problem.beta, y, {}, &workspace);
    EXPECT_EQ(y, expected_y);
    GradientSums sums(5), expected_sums(5);
    collect_gradients(t.x, t.dy, moments, expected_sums);
    collect_gradients(t.x, t.dy, moments, sums, {}, &workspace);
    EXPECT_EQ(sums.dy, expected_sums.dy);
    EXPECT_EQ(sums.dy_centered, expected_sums.dy_centered);
    RowMatrix dx, expected_dx;
    input_gradient(t.x, t.dy, moments, t.problem.gamma, sums, expected_dx);
    input_gradient(t.x, t.dy, moments, t.problem.gamma, sums, dx, {}, &workspace);
    EXPECT_EQ(dx, expected_dx);
  }
}

TEST(Phases, LongDouble) {
  using Matrix = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto p = random_problem<long double>({{37, 3}, Order::row_major, 1});
  const Matrix x = p.x.matrix().reshaped<Eigen::RowMajor>(37, 3), dy = p.dy.matrix().reshaped<Eigen::RowMajor>(37, 3);
  BasicMoments<long double> moments(3);
  BasicGradientSums<long double> sums(3);
  Matrix y, dx;
  collect_moments(x, moments);
  normalize(x, moments, p.gamma, p.beta, y);
  collect_gradients(x, dy, moments, sums);
  input_gradient(x, dy, moments, p.gamma, sums, dx);
  const Real epsilon = static_cast<Real>(p.epsilon);
  const auto batch = oracle::statistics(p.layout, p.x);
  const auto expected = oracle::forward(p.layout, p.x, batch, p.gamma, p.beta, epsilon);
  const auto gradients =
      oracle::backward(p.layout, p.x, p.dy, batch, p.gamma, epsilon, oracle::Statistic::of_the_batch);
  EXPECT_LE(error(y.reshaped<Eigen::RowMajor>(), expected), tolerance<long double>(Quantity::tensor));
  EXPECT_LE(error(dx.reshaped<Eigen::RowMajor>(), gradients.dx), tolerance<long double>(Quantity::tensor));
}

TEST(Shape, CollapsesEveryTensorOfTheTable) {
  const auto expect = [](const Shape& shape, Index outer, Index channels, Index inner) {
    EXPECT_EQ(shape.outer, outer);
    EXPECT_EQ(shape.channels, channels);
    EXPECT_EQ(shape.inner, inner);
    EXPECT_EQ(shape.count(), outer * inner);
    EXPECT_EQ(shape.size(), outer * channels * inner);
  };
  const Eigen::Tensor<float, 4, Eigen::RowMajor> nchw(2, 3, 4, 5);
  expect(shape_of(nchw, 1), 2, 3, 20);
  expect(shape_of(nchw, -1), 24, 5, 1);
  expect(shape_of(nchw, 0), 1, 2, 60);
  expect(shape_of(nchw, -2), 6, 4, 5);
  const Eigen::Tensor<float, 4, Eigen::ColMajor> cwhn(2, 3, 4, 5);
  expect(shape_of(cwhn, 0), 60, 2, 1);
  expect(shape_of(cwhn, 1), 20, 3, 2);
  expect(shape_of(cwhn, -1), 1, 5, 24);
  expect(shape_of(Eigen::MatrixXf(7, 3), 1), 1, 3, 7);
  expect(shape_of(RowMatrix(7, 3), 1), 7, 3, 1);
}

}  // namespace
}  // namespace batchnorm::test
