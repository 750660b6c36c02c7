// Forward mode and double backward.
#define EIGEN_USE_THREADS
#include <limits>

#include "finite_differences.hpp"
#include "second_order_oracle.hpp"
#include "step.hpp"
// Needs Eigen's core before it.
#include <unsupported/Eigen/AutoDiff>

namespace batchnorm::test {
namespace {

/// A problem and a direction to move in; with constant statistics, also those.
template <class Scalar>
struct DirectedProblem : Problem<Scalar> {
  Flat<Scalar> v;
  Vector<Parameter<Scalar>> v_gamma, v_beta;
  Statistics statistics = Statistics::of_batch;
  BasicMoments<StatisticOf<Scalar>> constants;
};

template <class Scalar>
DirectedProblem<Scalar> directed(const Problem<Scalar>& p, Statistics statistics = Statistics::of_batch) {
  Random random(7);
  const Index channels = p.layout.channels();
  DirectedProblem<Scalar> d{p, random.flat<Scalar>(p.x.size()), {}, {}, statistics, {}};
  d.v_gamma = random.vector<Parameter<Scalar>>(channels);
  d.v_beta = random.vector<Parameter<Scalar>>(channels);
  d.constants.count = 1;
  d.constants.mean = random.vector<StatisticOf<Scalar>>(channels);
  d.constants.m2 = random.vector<StatisticOf<Scalar>>(channels).cwiseAbs().array() + 0.5;
  return d;
}

template <class Scalar>
DirectedProblem<Scalar> random_directed_problem(const Layout& layout, Statistics statistics = Statistics::of_batch) {
  return directed(random_problem<Scalar>(layout), statistics);
}

template <class Scalar>
struct Answer {
  Flat<Scalar> ty, gx, gdy;
  Vector<Parameter<Scalar>> ggamma;
};

using test::same_bits;

template <class Scalar>
bool same_bits(const Answer<Scalar>& a, const Answer<Scalar>& b) {
  return same_bits(a.ty, b.ty) && same_bits(a.gx, b.gx) && same_bits(a.gdy, b.gdy) && same_bits(a.ggamma, b.ggamma);
}

/// On `device`, or without one. All tensors have rank 3: what others collapse to is tested with the layer.
template <class Scalar, class... Device>
Answer<Scalar> answer(const DirectedProblem<Scalar>& p, const Device&... device) {
  const Layout layout = as_rank_3(p.layout);
  return with_order(layout, [&]<int Order>() {
    const auto map = [&](auto& values) { return tensor<3, Order>(values, layout); };
    Answer<Scalar> s;
    s.ty = s.gx = s.gdy = Flat<Scalar>::Constant(p.x.size(), Scalar(-77));
    const auto x = map(p.x), dy = map(p.dy), v = map(p.v);
    const Options options{.epsilon = p.epsilon, .axis = layout.axis};
    auto moments = p.constants;
    if (p.statistics == Statistics::of_batch) collect_moments(device..., x, moments, options);
    const Direction direction{v, p.v_gamma, p.v_beta};
    jvp(device..., x, moments, p.gamma, direction, map(s.ty), options, p.statistics);
    double_backward(device..., x, dy, moments, p.gamma, direction, SecondGradients{map(s.gx), map(s.gdy), s.ggamma},
                    options, p.statistics);
    return s;
  });
}

/// An absent vector has no entries.
template <class V>
Values real_or(const V& values, Index size, Real otherwise) {
  return values.size() == 0 ? Values::Constant(size, otherwise) : Values(values.array().template cast<Real>());
}

template <class Scalar>
oracle::Tangents expected(const DirectedProblem<Scalar>& p) {
  const Index channels = p.layout.channels();
  const bool of_batch = p.statistics == Statistics::of_batch;
  const Values x = p.x.template cast<Real>();
  const oracle::Statistics constants{real_or(p.constants.mean, channels, 0), real_or(p.constants.var(), channels, 1)};
  const oracle::Direction v{p.v.template cast<Real>(), real_or(p.v_gamma, channels, 0), real_or(p.v_beta, channels, 0)};
  return oracle::tangents(p.layout, x, p.dy.template cast<Real>(),
                          of_batch ? oracle::statistics(p.layout, x) : constants, real_or(p.gamma, channels, 1), v,
                          static_cast<Real>(p.epsilon),
                          of_batch ? oracle::Statistic::of_the_batch : oracle::Statistic::constant);
}

template <class Scalar>
void expect_matches(const oracle::Tangents& tangents, const Answer<Scalar>& s, Real condition) {
  const Real allowed = tolerance<Scalar>(Quantity::tensor, condition);
  EXPECT_LE(error(s.ty, tangents.y), allowed);
  EXPECT_LE(error(s.gdy, tangents.y), allowed);
  EXPECT_LE(error(s.gx, tangents.dx), allowed);
  EXPECT_LE(error(s.ggamma, tangents.dgamma), tolerance<Scalar>(Quantity::parameter_gradient, condition));
}

template <class Scalar>
void expect_matches_on_every_target(const DirectedProblem<Scalar>& p, Real condition = 10) {
  SCOPED_TRACE(text(p.layout));
  SCOPED_TRACE(p.statistics == Statistics::of_batch ? "of the batch" : "constant");
  const oracle::Tangents tangents = expected(p);
  for_each_target([&] { expect_matches(tangents, answer(p), condition); });
}

template <class Scalar>
class SecondOrder : public testing::Test {};
using Scalars = testing::Types<float, double, Eigen::bfloat16, Eigen::half>;
TYPED_TEST_SUITE(SecondOrder, Scalars, );

TYPED_TEST(SecondOrder, EveryLayoutOnEveryTargetMatchesTheOracle) {
  for (const Layout& layout : cases()) {
    expect_matches_on_every_target(random_directed_problem<TypeParam>(layout));
    expect_matches_on_every_target(random_directed_problem<TypeParam>(layout, Statistics::constant));
  }
}

TYPED_TEST(SecondOrder, AbsentPartsAreZeroAndAbsentGammaIsOne) {
  for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
    for (const int absent : {1, 2, 4, 3, 7}) {
      auto p = random_directed_problem<TypeParam>({{37, 5, 7}}, statistics);
      if (absent & 1) p.v_gamma.resize(0);
      if (absent & 2) p.v_beta.resize(0);
      if (absent & 4) p.gamma.resize(0);
      expect_matches_on_every_target(p);
    }
  }
}

TEST(SecondOrder, LongDouble) {
  for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
    expect_matches_on_every_target(random_directed_problem<long double>({{37, 3}}, statistics));
  }
}

// ---- Numbers that break careless formulas.

std::vector<Layout> few_layouts() {
  return {{{600, 17}, Order::row_major, 1},       {{4, 5, 20, 20}, Order::row_major, 1},
          {{2, 3, 96, 96}, Order::row_major, 1},  {{31, 16, 3, 3}, Order::col_major, 1},
          {{20, 5, 12, 12}, Order::row_major, 1}, {{5, 3}, Order::row_major, 1}};
}

/// The problem of each layout after change(problem), with either kind of statistics.
template <class Scalar, class Change>
void expect_accurate(const Change& change, Real condition = 10) {
  for (const Layout& layout : few_layouts()) {
    for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
      auto p = random_directed_problem<Scalar>(layout, statistics);
      change(p);
      expect_matches_on_every_target(p, condition);
    }
  }
}

TEST(SecondOrder, MeansFarFromZero) {
  expect_accurate<float>(
      [](auto& p) {
        p.x = Random(5).flat<float>(p.x.size(), 1e6, 1);
        p.constants.mean.array() += 1e6;
      },
      1e7);
  expect_accurate<float>([](auto& p) { p.dy += 1000; });
  expect_accurate<float>([](auto& p) { p.v += 1000; });
  expect_accurate<double>([](auto& p) { p.dy += 1e6, p.v -= 1e6; });
}

/// x multiplied by `std`. v and dy such that neither ty nor dx leaves the range of float: what they give may not
/// either.
template <class Scalar>
void expect_accurate_at(Scalar std, Scalar dy, Scalar v) {
  SCOPED_TRACE(std);
  expect_accurate<Scalar>([&](auto& p) {
    p.epsilon = 0;
    p.x *= std;
    p.dy *= dy;
    p.v *= v;
    if (p.statistics == Statistics::of_batch) p.v_gamma *= v / std;
    p.v_beta *= v / std;
    p.constants.mean *= std;
    p.constants.m2 *= double(std) * double(std);
  });
}

TEST(SecondOrder, StandardDeviationsWhoseSquaresLeaveTheRangeOfFloat) {
  expect_accurate_at<float>(1e19f, 1, 1e19f);
  expect_accurate_at<float>(1e19f, 1e10f, 1e10f);
  expect_accurate_at<float>(1e25f, 1e25f, 1e20f);
  expect_accurate_at<float>(1e-20f, 1e-20f, 1);
  expect_accurate_at<float>(1e-20f, 1, 1e-20f);
  expect_accurate_at<float>(1e-30f, 1e-28f, 1e-20f);
}

TEST(SecondOrder, ConstantInputs) {
  expect_accurate<float>([](auto& p) { p.v.setZero(); });
  expect_accurate<float>([](auto& p) { p.dy.setZero(); });
  expect_accurate<float>([](auto& p) { p.v.setOnes(); });
  expect_accurate<float>([](auto& p) { p.dy.setOnes(); });
  expect_accurate<float>([](auto& p) { p.x.setConstant(3); });
}

TEST(SecondOrder, NoVarianceAndNoEpsilon) {
  auto p = random_directed_problem<float>({{20, 3}, Order::row_major, 1});
  p.x.setConstant(3);
  p.epsilon = 0;
  for_each_target([&] {
    const auto s = answer(p);
    EXPECT_TRUE((s.gx == 0).all());
    EXPECT_TRUE(s.ggamma.isZero(0));
    for (Index i = 0; i < s.ty.size(); ++i) ASSERT_EQ(s.ty[i], p.v_beta[p.layout.channel_of(i)]);
  });
}

TEST(SecondOrder, NaNAndInfinityStayInTheirChannel) {
  auto p = random_directed_problem<float>({{40, 4, 5}});
  p.x[5] = std::numeric_limits<float>::quiet_NaN();  // channel 1
  p.dy[10] = std::numeric_limits<float>::infinity();
  p.v[15] = std::numeric_limits<float>::quiet_NaN();
  for_each_target([&] {
    const auto s = answer(p);
    for (Index i = 0; i < p.x.size(); ++i) {
      const Index c = p.layout.channel_of(i);
      ASSERT_EQ(std::isfinite(s.gx[i]), c == 0);
      ASSERT_EQ(std::isfinite(s.gdy[i]), c == 0 || c == 2);
    }
    for (Index c = 0; c < 4; ++c) ASSERT_EQ(std::isfinite(s.ggamma[c]), c == 0);
  });
}

// ---- Against other ways to the same derivatives.

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr Index rows = 11;
Matrix matrix(const Eigen::VectorXd& values) { return values.reshaped<Eigen::RowMajor>(rows, 3); }
Eigen::VectorXd flat(const Matrix& values) { return values.reshaped<Eigen::RowMajor>(); }

/// A layer in training or eval, and a direction.
struct SmallProblem {
  explicit SmallProblem(Statistics whose) : statistics(whose) {}

  template <class Scalar = double>
  BatchNorm<Scalar> layer(const Vector<Scalar>& scale, const Vector<Scalar>& shift) const {
    BatchNorm<Scalar> made(3, options);
    made.gamma() = scale;
    made.beta() = shift;
    made.running_mean() << Scalar(0.5), Scalar(-1), Scalar(2);
    made.running_var() << Scalar(0.7), Scalar(2), Scalar(1.5);
    if (statistics == Statistics::constant) made.eval();
    return made;
  }

  Random random{3};
  Statistics statistics;
  Options options{.epsilon = 0.01};
  Eigen::VectorXd x = random.vector<double>(rows * 3, 0.5, 1.5), dy = random.vector<double>(rows * 3),
                  v = random.vector<double>(rows * 3), gamma = random.vector<double>(3, 1),
                  beta = random.vector<double>(3), v_gamma = random.vector<double>(3),
                  v_beta = random.vector<double>(3);
};

struct SmallAnswer {
  explicit SmallAnswer(const SmallProblem& p) {
    auto layer = p.layer(p.gamma, p.beta);
    const Matrix x = matrix(p.x), dy = matrix(p.dy), v = matrix(p.v);
    Matrix y;
    layer.forward(x, y);
    const Direction direction{v, p.v_gamma, p.v_beta};
    jvp(x, layer.moments(), layer.gamma(), direction, ty, layer.options(), p.statistics);
    double_backward(x, dy, layer.moments(), layer.gamma(), direction, SecondGradients{gx, gdy, ggamma}, layer.options(),
                    p.statistics);
  }
  Matrix ty, gx, gdy;
  Eigen::VectorXd ggamma;
};

class SecondOrderOf : public testing::TestWithParam<Statistics> {};
INSTANTIATE_TEST_SUITE_P(Statistics, SecondOrderOf, testing::Values(Statistics::of_batch, Statistics::constant));

TEST_P(SecondOrderOf, DoubleBackwardIsTheGradientOfALossOfGradients) {
  const SmallProblem p(GetParam());
  const auto loss = [&](const Eigen::VectorXd& x, const Eigen::VectorXd& dy, const Eigen::VectorXd& gamma) {
    auto layer = p.layer(gamma, p.beta);
    Matrix y, dx;
    layer.forward(matrix(x), y);
    layer.backward(matrix(x), matrix(dy), dx);
    return flat(dx).dot(p.v) + layer.gamma_gradient().dot(p.v_gamma) + layer.beta_gradient().dot(p.v_beta);
  };
  const double step = 1e-3;
  const auto gx = finite_differences([&](const auto& at) { return loss(at, p.dy, p.gamma); }, p.x, step);
  const auto gdy = finite_differences([&](const auto& at) { return loss(p.x, at, p.gamma); }, p.dy, step);
  const auto ggamma = finite_differences([&](const auto& at) { return loss(p.x, p.dy, at); }, p.gamma, step);
  for_each_target([&] {
    const SmallAnswer s(p);
    EXPECT_TRUE(flat(s.gx).isApprox(gx, 1e-9));
    EXPECT_TRUE(flat(s.gdy).isApprox(gdy, 1e-9));
    EXPECT_TRUE(s.ggamma.isApprox(ggamma, 1e-9));
  });
}

TEST_P(SecondOrderOf, JvpIsTheDerivativeOfForward) {
  const SmallProblem p(GetParam());
  const auto y_at = [&](double t) {
    Matrix y;
    auto layer = p.layer<double>(p.gamma + t * p.v_gamma, p.beta + t * p.v_beta);
    layer.forward(matrix(p.x + t * p.v), y);
    return y;
  };
  const auto slope = [&](double t) { return Matrix((y_at(t) - y_at(-t)) / (2 * t)); };
  const Matrix ty = (4 * slope(1e-3) - slope(2e-3)) / 3;
  for_each_target([&] { EXPECT_TRUE(SmallAnswer(p).ty.isApprox(ty, 1e-9)); });
}

/// Forward over reverse: a whole layer of numbers that carry their derivative in a direction.
TEST_P(SecondOrderOf, ALayerOfAutodiffScalarsAgrees) {
  using Dual = Eigen::AutoDiffScalar<Eigen::Matrix<double, 1, 1>>;
  using DualMatrix = Eigen::Matrix<Dual, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const SmallProblem p(GetParam());
  const auto moving = [](const Eigen::VectorXd& at, const Eigen::VectorXd& by) {
    Vector<Dual> duals(at.size());
    for (Index i = 0; i < at.size(); ++i) duals[i] = Dual(at[i], Eigen::Matrix<double, 1, 1>(by[i]));
    return duals;
  };
  const auto as_matrix = [](const Vector<Dual>& duals) { return DualMatrix(duals.reshaped<Eigen::RowMajor>(rows, 3)); };
  const auto derivatives = [](const auto& duals) {
    return duals.unaryExpr([](const Dual& dual) { return dual.derivatives()[0]; }).eval();
  };
  const DualMatrix x = as_matrix(moving(p.x, p.v)), dy = as_matrix(moving(p.dy, Eigen::VectorXd::Zero(p.dy.size())));
  DualMatrix y, dx;
  auto layer = p.layer<Dual>(moving(p.gamma, p.v_gamma), moving(p.beta, p.v_beta));
  layer.forward(x, y);
  layer.backward(x, dy, dx);
  const SmallAnswer s(p);
  EXPECT_TRUE(s.ty.isApprox(derivatives(y), 1e-13));
  EXPECT_TRUE(s.gdy.isApprox(derivatives(y), 1e-13));
  EXPECT_TRUE(s.gx.isApprox(derivatives(dx), 1e-13));
  EXPECT_TRUE(s.ggamma.isApprox(derivatives(layer.gamma_gradient()), 1e-13));
}

/// Moments may depend on what they count by: y = (x - mean) / sqrt(m2 / count + epsilon).
TEST(SecondOrder, ACountOfOneMayHaveADerivative) {
  using Dual = Eigen::AutoDiffScalar<Eigen::Matrix<double, 1, 1>>;
  Eigen::Matrix<Dual, Eigen::Dynamic, Eigen::Dynamic> x(2, 1), y(2, 1);
  x << Dual(1), Dual(3);
  BasicMoments<Dual> moments(1);
  moments.count = Dual(1, Eigen::Matrix<double, 1, 1>(1.));
  moments.mean[0] = Dual(2);
  moments.m2[0] = Dual(1);
  const Vector<Dual> none;
  const Options options;
  normalize(x, moments, none, none, y, options);
  EXPECT_NEAR(y(1, 0).derivatives()[0], 0.5 / std::pow(1 + options.epsilon, 1.5), 1e-13);
}

// ---- Threads, memory, bad input.

template <class Scalar>
void expect_same_bits_for_any_number_of_threads(const Layout& layout) {
  static Eigen::ThreadPool one(1), two(2), eight(8);
  SCOPED_TRACE(text(layout));
  for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
    const auto p = random_directed_problem<Scalar>(layout, statistics);
    const auto serial = answer(p);
    EXPECT_TRUE(same_bits(serial, answer(p, Eigen::DefaultDevice())));
    for (Eigen::ThreadPool* pool : {&one, &two, &eight}) {
      EXPECT_TRUE(same_bits(serial, answer(p, Eigen::ThreadPoolDevice(pool, pool->NumThreads()))));
    }
  }
}

TEST(SecondOrder, SameBitsForAnyNumberOfThreads) {
  for (const Layout& layout : cases()) {
    for_each_target([&] { expect_same_bits_for_any_number_of_threads<float>(layout); });
  }
  for (const Layout& layout :
       {Layout{{20011, 17}}, Layout{{20011, 17}, Order::col_major}, Layout{{16, 33, 25, 25}}, Layout{{4, 3, 150, 170}},
        Layout{{600, 64, 3, 3}}, Layout{{2500, 3, 20}}, Layout{{64, 50, 14, 14}}, Layout{{300, 1500}}}) {
    expect_same_bits_for_any_number_of_threads<float>(layout);
    expect_same_bits_for_any_number_of_threads<double>(layout);
    expect_same_bits_for_any_number_of_threads<Eigen::bfloat16>(layout);
  }
}

TEST(SecondOrder, LargeTensorsMatchTheOracle) {
  for (const Layout& layout : {Layout{{20011, 17}}, Layout{{4, 3, 150, 170}}, Layout{{600, 64, 3, 3}}}) {
    for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
      expect_matches_on_every_target(random_directed_problem<float>(layout, statistics));
    }
  }
}

/// Tensors of a problem on 4x3x2x5, and what double_backward and jvp make of them.
class SecondOrderCalls : public testing::Test {
 protected:
  using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
  using TensorMap = Eigen::TensorMap<Tensor>;

  SecondOrderCalls() {
    collect_moments(x, moments);
    jvp(x, moments, p.gamma, direction(), ty);
    double_backward(x, dy, moments, p.gamma, direction(), SecondGradients{gx, gdy, ggamma});
  }

  Tensor copy(const Flat<float>& values) const { return tensor<4, Eigen::RowMajor>(values, p.layout); }
  static Flat<float> values(const Tensor& t) { return Eigen::Map<const Flat<float>>(t.data(), t.size()); }
  Direction<Tensor> direction() const { return {v, p.v_gamma, p.v_beta}; }

  /// That `call` ends in the error `text` and leaves the outputs as they were.
  template <class Call>
  void expect_error(const std::string& text, const Call& call) {
    SCOPED_TRACE(text);
    const Flat<float> before[] = {values(ty), values(gx), values(gdy), ggamma};
    EXPECT_EQ(error_of(call), text);
    EXPECT_TRUE(same_bits(values(ty), before[0]));
    EXPECT_TRUE(same_bits(values(gx), before[1]));
    EXPECT_TRUE(same_bits(values(gdy), before[2]));
    EXPECT_TRUE(same_bits(Flat<float>(ggamma), before[3]));
  }

  /// The same error from both.
  template <class M, class V>
  void expect_errors(const std::string& text, const Tensor& at, const M& about, const Eigen::VectorXf& gamma,
                     const Direction<V>& along, const Options& options = {}) {
    expect_error("batchnorm::jvp: " + text, [&] { jvp(at, about, gamma, along, ty, options); });
    expect_error("batchnorm::double_backward: " + text, [&] {
      double_backward(at, at, about, gamma, along, SecondGradients{gx, gdy, ggamma}, options);
    });
  }

  DirectedProblem<float> p = random_directed_problem<float>({{4, 3, 2, 5}});
  Tensor x = copy(p.x), dy = copy(p.dy), v = copy(p.v), ty, gx, gdy;
  Eigen::VectorXf ggamma;
  Moments moments;
};

TEST_F(SecondOrderCalls, InPlace) {
  Tensor y = x, at_v = v;
  jvp(y, moments, p.gamma, direction(), y);
  EXPECT_TRUE(same_bits(values(y), values(ty)));
  jvp(x, moments, p.gamma, Direction{at_v, p.v_gamma, p.v_beta}, at_v);
  EXPECT_TRUE(same_bits(values(at_v), values(ty)));

  for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
    double_backward(x, dy, moments, p.gamma, direction(), SecondGradients{gx, gdy, ggamma}, {}, statistics);
    for (const int which : {0, 1, 2}) {
      Tensor inputs[] = {x, dy, v}, other;
      Eigen::VectorXf gamma = p.gamma;
      double_backward(inputs[0], inputs[1], moments, gamma, Direction{inputs[2], p.v_gamma, p.v_beta},
                      SecondGradients{inputs[which], other, gamma}, {}, statistics);
      EXPECT_TRUE(same_bits(values(inputs[which]), values(gx)));
      EXPECT_TRUE(same_bits(values(other), values(gdy)));
      EXPECT_TRUE(same_bits(gamma, ggamma));
    }
  }
}

TEST_F(SecondOrderCalls, BlocksOfAMatrix) {
  using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const RowMatrix table = RowMatrix::Random(60, 9);
  RowMatrix outputs = RowMatrix::Zero(60, 9), t(60, 3), w(60, 3);
  const auto block = [](auto& of, Index k) { return of.middleCols(3 * k, 3); };
  const RowMatrix a = block(table, 0), b = block(table, 1), c = block(table, 2);
  collect_moments(a, moments);
  Eigen::VectorXf gamma;
  for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
    for (const bool moves_gamma : {true, false}) {
      const Eigen::VectorXf v_gamma = p.v_gamma.head(moves_gamma ? 3 : 0);
      double_backward(a, b, moments, p.gamma, Direction{c, v_gamma}, SecondGradients{t, w, ggamma}, {}, statistics);
      double_backward(block(table, 0), block(table, 1), moments, p.gamma, Direction{block(table, 2), v_gamma},
                      SecondGradients{block(outputs, 0), block(outputs, 2), gamma}, {}, statistics);
      EXPECT_TRUE(block(outputs, 0).isApprox(t, 1e-5f));
      EXPECT_TRUE(block(outputs, 1).isZero(0));
      EXPECT_TRUE(block(outputs, 2).isApprox(w, 1e-5f));
      EXPECT_TRUE(gamma.isApprox(ggamma, 1e-5f));
    }
  }
}

TEST_F(SecondOrderCalls, WithoutValues) {
  const Tensor none(0, 3, 2, 5);
  collect_moments(none, moments);
  for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
    jvp(none, moments, p.gamma, Direction{none}, ty, {}, statistics);
    double_backward(none, none, moments, p.gamma, Direction{none}, SecondGradients{gx, gdy, ggamma}, {}, statistics);
    for (const Tensor* output : {&ty, &gx, &gdy}) EXPECT_EQ(output->dimensions(), none.dimensions());
    EXPECT_EQ(ggamma, Eigen::VectorXf::Zero(3));
  }
}

TEST_F(SecondOrderCalls, BadInput) {
  const std::string wanted = "it must have one entry for each of 3 channels";
  const Eigen::VectorXf four = Eigen::VectorXf::Ones(4), none;
  const Tensor wrong(4, 3, 5, 2),
      half = x.slice(Eigen::array<Index, 4>{0, 0, 0, 0}, Eigen::array<Index, 4>{2, 3, 2, 5});
  expect_errors("axis is 4; x has 4 axes", x, moments, none, direction(), {.axis = 4});
  expect_errors("epsilon is -1; it must be finite and not negative", x, moments, none, direction(), {.epsilon = -1});
  expect_errors("direction.x is 4x3x5x2; x is 4x3x2x5", x, moments, none, Direction{wrong});
  expect_errors("moments.mean has length 4; " + wanted, x, Moments(4), none, direction());
  expect_errors("moments hold no values", x, Moments(3), none, direction());
  expect_errors("gamma has length 4; " + wanted, x, moments, four, direction());
  expect_errors("direction.gamma has length 4; " + wanted, x, moments, none, Direction{v, four});
  expect_errors("direction.beta has length 4; " + wanted, x, moments, none, Direction{v, none, four});
  expect_errors("moments are not those of the 20 values per channel of x; Statistics::constant takes any", half,
                moments, none, Direction{half});
  expect_errors("moments are not those of the 40 values per channel of x; Statistics::constant takes any", x,
                RunningStatistics(3).moments(), none, direction());
  expect_error("batchnorm::double_backward: dy is 4x3x5x2; x is 4x3x2x5", [&] {
    double_backward(x, wrong, moments, none, direction(), SecondGradients{gx, gdy, ggamma});
  });
}

TEST_F(SecondOrderCalls, OutputsThatDoNotFit) {
  Tensor other = copy(p.x);
  const TensorMap map(other.data(), 4, 3, 5, 2);
  const Eigen::VectorXf none;
  expect_error("batchnorm::jvp: ty is 4x3x5x2; x is 4x3x2x5",
               [&] { jvp(x, moments, none, direction(), TensorMap(map)); });
  expect_error("batchnorm::double_backward: gradients.x is 4x3x5x2; x is 4x3x2x5", [&] {
    double_backward(x, dy, moments, none, direction(), SecondGradients{TensorMap(map), gdy, ggamma});
  });
  expect_error("batchnorm::double_backward: gradients.dy is 4x3x5x2; x is 4x3x2x5", [&] {
    double_backward(x, dy, moments, none, direction(), SecondGradients{gx, TensorMap(map), ggamma});
  });
  EXPECT_TRUE(same_bits(values(other), p.x));
}

TEST_F(SecondOrderCalls, OutputsThatOverlap) {
  const Eigen::VectorXf none;
  const Index size = x.size();
  Flat<float> memory = Flat<float>::Random(4 * size);
  const Flat<float> before = memory;
  const auto at = [&](Index offset) { return TensorMap(memory.data() + offset, x.dimensions()); };
  const std::string apart = "; it must lie apart", same = "; it must be the same memory or lie apart";
  const auto expect_overlap = [&](const std::string& text, const auto& a, const auto& b, const auto& c, auto& to_x,
                                  auto& to_dy) {
    expect_error("batchnorm::double_backward: " + text, [&] {
      double_backward(a, b, moments, none, Direction{c}, SecondGradients{to_x, to_dy, ggamma});
    });
  };
  expect_error("batchnorm::jvp: ty overlaps x" + same, [&] { jvp(at(0), moments, none, Direction{v}, at(1)); });
  expect_error("batchnorm::jvp: ty overlaps direction.x" + same,
               [&] { jvp(x, moments, none, Direction{at(size)}, at(1)); });
  TensorMap first = at(0), shifted = at(1), last = at(3 * size);
  expect_overlap("gradients.x overlaps x" + same, first, dy, v, shifted, last);
  expect_overlap("gradients.x overlaps dy" + same, x, first, v, shifted, last);
  expect_overlap("gradients.x overlaps direction.x" + same, x, dy, first, shifted, last);
  for (TensorMap* to_dy : {&first, &shifted}) {
    expect_overlap("gradients.dy overlaps x" + apart, first, dy, v, last, *to_dy);
    expect_overlap("gradients.dy overlaps dy" + apart, x, first, v, last, *to_dy);
    expect_overlap("gradients.dy overlaps direction.x" + apart, x, dy, first, last, *to_dy);
    expect_overlap("gradients.dy overlaps gradients.x" + apart, x, dy, v, first, *to_dy);
  }
  Tensor one;
  expect_overlap("gradients.dy overlaps gradients.x" + apart, x, dy, v, one, one);
  EXPECT_EQ(one.size(), 0);
  EXPECT_TRUE(same_bits(memory, before));
}

}  // namespace
}  // namespace batchnorm::test
