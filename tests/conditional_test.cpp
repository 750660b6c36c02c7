// Gamma and beta of each sample.
#define EIGEN_USE_THREADS
#include "finite_differences.hpp"
#include "step.hpp"

namespace batchnorm::test {
namespace {

template <class Scalar>
struct ConditionalProblem : Problem<Scalar> {
  PerSample<Parameter<Scalar>> gammas, betas;
  Index samples() const { return gammas.rows(); }
  /// The sample of an element: the slowest axis counts them.
  Index sample_of(Index i) const { return i / (this->layout.size() / samples()); }
};

template <class Scalar>
ConditionalProblem<Scalar> conditional_problem(const Layout& layout) {
  ConditionalProblem<Scalar> p{random_problem<Scalar>(layout), {}, {}};
  const Index samples = layout.dim(layout.order == Order::row_major ? 0 : layout.rank() - 1);
  Random random(11);
  const auto values = [&](double mean) {
    return PerSample<Parameter<Scalar>>(random.vector<Parameter<Scalar>>(samples * layout.channels(), mean)
                                            .template reshaped<Eigen::RowMajor>(samples, layout.channels()));
  };
  p.gammas = values(1);
  p.betas = values(0);
  return p;
}

template <class Scalar>
struct ConditionalStep {
  Flat<Scalar> y, dx;
  PerSample<Parameter<Scalar>> dgamma, dbeta;
};

template <class Scalar, class... Device>
ConditionalStep<Scalar> run_conditional(const ConditionalProblem<Scalar>& p, const Device&... device) {
  return with_order(p.layout, [&]<int Order>() {
    const auto map = [&](auto& values) { return tensor<3, Order>(values, p.layout); };
    ConditionalStep<Scalar> s;
    s.y = s.dx = Flat<Scalar>::Constant(p.x.size(), Scalar(-77));
    const auto x = map(p.x), dy = map(p.dy);
    const Options options{.epsilon = p.epsilon, .axis = p.layout.axis};
    BasicMoments<StatisticOf<Scalar>> moments;
    collect_moments(device..., x, moments, options);
    normalize_per_sample(device..., x, moments, p.gammas, p.betas, map(s.y), options);
    backward_per_sample(device..., x, dy, moments, p.gammas, map(s.dx), s.dgamma, s.dbeta, options);
    return s;
  });
}

/// By the definitions, element by element.
template <class Scalar>
void expect_conditional_matches_oracle(const ConditionalProblem<Scalar>& p) {
  SCOPED_TRACE(text(p.layout));
  const Values x = p.x.template cast<Real>(), dy = p.dy.template cast<Real>();
  const Layout& layout = p.layout;
  const oracle::Statistics batch = oracle::statistics(layout, x);
  const Values inv_std = (batch.var + static_cast<Real>(p.epsilon)).rsqrt();
  const Real count = static_cast<Real>(layout.count());
  using Sums = Eigen::Array<Real, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Sums dgamma = Sums::Zero(p.samples(), layout.channels()), dbeta = dgamma, dgamma_squares = dgamma,
       dbeta_squares = dgamma;
  Values mean_g = Values::Zero(layout.channels()), mean_g_xhat = mean_g, mean_squares = mean_g;
  oracle::Result y{Values(x.size()), Values(x.size())}, dx = y;
  const auto each = [&](const auto& f) {
    for (Index i = 0; i < x.size(); ++i) {
      const Index c = layout.channel_of(i), n = p.sample_of(i);
      f(i, n, c, (x[i] - batch.mean[c]) * inv_std[c], static_cast<Real>(p.gammas(n, c)) * dy[i]);
    }
  };
  each([&](Index i, Index n, Index c, Real xhat, Real g) {
    const Real gamma = static_cast<Real>(p.gammas(n, c)), beta = static_cast<Real>(p.betas(n, c));
    y.value[i] = gamma * xhat + beta;
    y.unit[i] = std::max(std::abs(gamma) * std::max(std::abs(xhat), Real(1)), std::abs(beta));
    dgamma(n, c) += dy[i] * xhat;
    dbeta(n, c) += dy[i];
    dgamma_squares(n, c) += std::pow(dy[i] * xhat, 2);
    dbeta_squares(n, c) += dy[i] * dy[i];
    mean_g[c] += g / count;
    mean_g_xhat[c] += g * xhat / count;
    mean_squares[c] += g * g / count;
  });
  each([&](Index i, Index, Index c, Real xhat, Real g) {
    dx.value[i] = inv_std[c] * (g - mean_g[c] - xhat * mean_g_xhat[c]);
    dx.unit[i] = inv_std[c] * std::max({std::abs(g), std::sqrt(mean_squares[c]), std::abs(xhat * mean_g_xhat[c])});
  });
  for_each_target([&] {
    const ConditionalStep<Scalar> s = run_conditional(p);
    const Real allowed = tolerance<Scalar>(Quantity::tensor, 10),
               parameter = tolerance<Scalar>(Quantity::parameter_gradient, 10);
    EXPECT_LE(error(s.y, y), allowed);
    EXPECT_LE(error(s.dx, dx), allowed);
    // A sample may have one value, with an xhat near 0: the unit is that of an xhat of 1.
    const auto flat = [](const Sums& sums) { return Values(sums.reshaped<Eigen::RowMajor>()); };
    const auto flat_of = [](const auto& m) { return m.template reshaped<Eigen::RowMajor>().eval(); };
    EXPECT_LE(
        error(flat_of(s.dgamma), {flat(dgamma), flat(dgamma.abs().max(dgamma_squares.max(dbeta_squares).sqrt()))}),
        parameter);
    EXPECT_LE(error(flat_of(s.dbeta), {flat(dbeta), flat(dbeta.abs().max(dbeta_squares.sqrt()))}), parameter);
  });
}

std::vector<Layout> conditional_layouts() {
  return {{{5, 3, 70}, Order::row_major, 1}, {{5, 70, 17}, Order::row_major, -1}, {{40, 17, 1}, Order::row_major, 1},
          {{70, 3, 5}, Order::col_major, 1}, {{3, 70, 5}, Order::col_major, 0},   {{3, 5, 5000}, Order::row_major, 1}};
}

template <class Scalar>
class Conditional : public testing::Test {};
using ConditionalScalars = testing::Types<float, double, Eigen::bfloat16>;
TYPED_TEST_SUITE(Conditional, ConditionalScalars);

TYPED_TEST(Conditional, MatchesTheOracle) {
  for (const Layout& layout : conditional_layouts()) {
    expect_conditional_matches_oracle(conditional_problem<TypeParam>(layout));
  }
}

TEST(ConditionalBatchNorm, TheSameBitsForAnyNumberOfThreads) {
  Eigen::ThreadPool pool(3);
  const Eigen::ThreadPoolDevice device(&pool, 3);
  const auto p = conditional_problem<float>({{3, 17, 40000}, Order::row_major, 1});
  const auto serial = run_conditional(p), shared = run_conditional(p, device);
  EXPECT_TRUE(same_bits(serial.y, shared.y));
  EXPECT_TRUE(same_bits(serial.dx, shared.dx));
  EXPECT_TRUE(same_bits(serial.dgamma, shared.dgamma));
  EXPECT_TRUE(same_bits(serial.dbeta, shared.dbeta));
}

using Table = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(ConditionalBatchNorm, FiniteDifferences) {
  const Table x = Table::Random(9, 3), weights = Table::Random(9, 3), beta = Table::Random(9, 3);
  Table gamma = Table::Random(9, 3);
  gamma(4, 1) = 0;
  const auto loss = [&](const Table& of_x, const Table& of_gamma) {
    Moments moments;
    Table y;
    collect_moments(of_x, moments);
    normalize_per_sample(of_x, moments, of_gamma, beta, y);
    return y.cwiseProduct(weights).sum();
  };
  const auto table = [](const Eigen::VectorXd& v) { return Table(v.reshaped<Eigen::RowMajor>(9, 3)); };
  Moments moments;
  Table dx, dgamma, dbeta;
  collect_moments(x, moments);
  backward_per_sample(x, weights, moments, gamma, dx, dgamma, dbeta);
  const Eigen::VectorXd flat_x = x.reshaped<Eigen::RowMajor>(), flat_gamma = gamma.reshaped<Eigen::RowMajor>();
  EXPECT_TRUE(dx.isApprox(
      table(finite_differences([&](const Eigen::VectorXd& v) { return loss(table(v), gamma); }, flat_x, 1e-4)), 1e-8));
  EXPECT_TRUE(dgamma.isApprox(
      table(finite_differences([&](const Eigen::VectorXd& v) { return loss(x, table(v)); }, flat_gamma, 1e-4)), 1e-8));
  EXPECT_EQ(dbeta, weights);
}

TEST(ConditionalBatchNorm, WithoutGammaAndBetaIsNormalize) {
  const Table x = Table::Random(9, 3);
  Moments moments;
  Table y, plain;
  collect_moments(x, moments);
  normalize_per_sample(x, moments, Table(), Table(), y);
  normalize(x, moments, Eigen::VectorXd(), Eigen::VectorXd(), plain);
  EXPECT_EQ(y, plain);
}

TEST(ConditionalBatchNorm, RefusesWhatDoesNotFit) {
  const Table x = Table::Random(9, 3), nine = Table::Random(9, 3), eight = Table::Random(8, 3);
  Moments moments;
  collect_moments(x, moments);
  Table y = Table::Constant(2, 2, -77), dgamma, dbeta;
  EXPECT_EQ(error_of([&] { normalize_per_sample(x, moments, eight, nine, y); }),
            "batchnorm::normalize_per_sample: gamma is 8x3; samples and channels are 9x3");
  EXPECT_EQ(error_of([&] { normalize_per_sample(x, moments, nine, eight, y); }),
            "batchnorm::normalize_per_sample: beta is 8x3; samples and channels are 9x3");
  EXPECT_EQ(error_of([&] { backward_per_sample(x, eight, moments, nine, y, dgamma, dbeta); }),
            "batchnorm::backward_per_sample: dy is 8x3; x is 9x3");
  EXPECT_EQ(error_of([&] { normalize_per_sample(x, moments, nine, nine, y, {.axis = 0}); }),
            "batchnorm::normalize_per_sample: the channels are on the slowest axis, which counts the samples (row "
            "major: the first, column major: the last)");
  moments.merge(Moments(moments));
  EXPECT_EQ(error_of([&] { backward_per_sample(x, x, moments, nine, y, dgamma, dbeta); }),
            "batchnorm::backward_per_sample: moments are not those of the 9 values per channel of x");
  EXPECT_EQ(y, Table::Constant(2, 2, -77));
  EXPECT_EQ(dgamma.size(), 0);
}

TEST(ConditionalBatchNorm, RefusesGradientsOverOtherArguments) {
  const Table x = Table::Random(9, 3);
  Table dy = Table::Random(9, 3), gamma = Table::Random(9, 3), dx = Table::Random(9, 3), dgamma, dbeta;
  const Table dy_before = dy, gamma_before = gamma, dx_before = dx;
  Moments moments;
  collect_moments(x, moments);
  const auto backward = [&](Table& gamma_gradient, Table& beta_gradient) {
    return error_of([&] { backward_per_sample(x, dy, moments, gamma, dx, gamma_gradient, beta_gradient); });
  };
  const std::string f = "batchnorm::backward_per_sample: ";
  EXPECT_EQ(backward(gamma, dbeta), f + "gamma_gradient overlaps gamma; it must lie apart");
  EXPECT_EQ(backward(dy, dbeta), f + "gamma_gradient overlaps dy; it must lie apart");
  EXPECT_EQ(backward(dx, dbeta), f + "gamma_gradient overlaps dx; it must lie apart");
  EXPECT_EQ(backward(dgamma, gamma), f + "beta_gradient overlaps gamma; it must lie apart");
  EXPECT_EQ(backward(dgamma, dgamma), f + "beta_gradient overlaps gamma_gradient; it must lie apart");
  EXPECT_EQ(error_of([&] { normalize_per_sample(x, moments, gamma, dy, gamma); }),
            "batchnorm::normalize_per_sample: y overlaps gamma; it must lie apart");
  EXPECT_EQ(error_of([&] { normalize_per_sample(x, moments, gamma, dy, dy); }),
            "batchnorm::normalize_per_sample: y overlaps beta; it must lie apart");
  EXPECT_EQ(dy, dy_before);
  EXPECT_EQ(gamma, gamma_before);
  EXPECT_EQ(dx, dx_before);
}

}  // namespace
}  // namespace batchnorm::test
