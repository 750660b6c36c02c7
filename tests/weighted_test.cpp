// Masks and weights: statistics in which each position counts as much as it should.
#define EIGEN_USE_THREADS
#include <limits>

#include "finite_differences.hpp"
#include "step.hpp"

namespace batchnorm::test {
namespace {

/// Which axes the weights have; the others are 1.
enum class Extent { positions, samples, places };

template <class Scalar>
struct WeightedProblem : Problem<Scalar> {
  Extent extent;
  MaskedOutputs outputs;
  Flat<Scalar> weights;            // as given
  std::vector<Index> weight_dims;  // of the rank of x
  Values weight_of_each;           // of every element of x
};

/// About a third of the weights are 0, and there x holds what must change nothing.
template <class Scalar>
WeightedProblem<Scalar> weighted_problem(const Layout& layout, Extent extent, MaskedOutputs outputs) {
  WeightedProblem<Scalar> p{random_problem<Scalar>(layout), extent, outputs, {}, layout.dims, {}};
  const Index axis = layout.channel_axis(), samples = layout.order == Order::row_major ? 0 : layout.rank() - 1;
  for (Index d = 0; d < layout.rank(); ++d) {
    const bool kept = extent == Extent::positions || (extent == Extent::samples) == (d == samples);
    if (d == axis || !kept) p.weight_dims[static_cast<std::size_t>(d)] = 1;
  }
  Layout of_weights = layout;
  of_weights.dims = p.weight_dims;
  Random random(7);
  p.weights = Flat<Scalar>(of_weights.size());
  for (Index i = 0; i < p.weights.size(); ++i) {
    const double weight = std::abs(random.normal());
    p.weights[i] = static_cast<Scalar>(i % 3 == 1 ? 0 : weight);
  }
  p.weight_of_each = Values(layout.size());
  const float junk[] = {std::numeric_limits<float>::quiet_NaN(), 1e30f, -std::numeric_limits<float>::infinity()};
  for (Index i = 0; i < layout.size(); ++i) {
    Index rest = i, at = 0, step = 1;
    for (int k = 0; k < layout.rank(); ++k) {
      const int d = layout.order == Order::row_major ? layout.rank() - 1 - k : k;
      const Index coordinate = rest % layout.dim(d), extent_of_weights = of_weights.dim(d);
      rest /= layout.dim(d);
      at += extent_of_weights == 1 ? 0 : coordinate * step;
      step *= extent_of_weights;
    }
    p.weight_of_each[i] = static_cast<Real>(p.weights[at]);
    if (p.weight_of_each[i] == 0 && outputs == MaskedOutputs::zero) {
      p.x[i] = static_cast<Scalar>(junk[i % 3]);
      p.dy[i] = static_cast<Scalar>(junk[(i + 1) % 3]);
    }
  }
  return p;
}

template <class Scalar>
struct WeightedStep {
  Flat<Scalar> y, dx, eval_y, eval_dx;
  Vector<ParameterOf<Scalar>> dgamma, dbeta, eval_dgamma, eval_dbeta;
  Vector<StatisticOf<Scalar>> mean, var, running_mean, running_var;
  double count;
  auto all() const { return std::tie(y, dx, eval_y, eval_dx, dgamma, dbeta, eval_dgamma, eval_dbeta, mean, var); }
};

template <class Scalar, class... Device>
WeightedStep<Scalar> run_weighted(const WeightedProblem<Scalar>& p, const Device&... device) {
  return with_order(p.layout, [&]<int Order>() {
    const auto map = [&](auto& values) { return tensor<3, Order>(values, p.layout); };
    Layout of_weights = p.layout;
    of_weights.dims = p.weight_dims;
    WeightedStep<Scalar> s;
    s.y = s.dx = s.eval_y = s.eval_dx = Flat<Scalar>::Constant(p.x.size(), Scalar(-77));
    const auto x = map(p.x), dy = map(p.dy);
    const auto weights = tensor<3, Order>(p.weights, of_weights);
    auto y = map(s.y), dx = map(s.dx), eval_y = map(s.eval_y), eval_dx = map(s.eval_dx);
    BatchNorm<Scalar> layer = layer_of(p);
    layer.forward_weighted(device..., x, weights, y, p.outputs);
    layer.backward_weighted(device..., x, weights, dy, dx, p.outputs);
    s.dgamma = layer.gamma_gradient();
    s.dbeta = layer.beta_gradient();
    s.mean = layer.moments().mean;
    s.var = layer.moments().var();
    s.count = static_cast<double>(layer.moments().count);
    s.running_mean = layer.running_mean();
    s.running_var = layer.running_var();
    layer.eval();
    layer.zero_gradients();
    layer.forward_weighted(device..., x, weights, eval_y, p.outputs);
    layer.backward_weighted(device..., x, weights, dy, eval_dx, p.outputs);
    s.eval_dgamma = layer.gamma_gradient();
    s.eval_dbeta = layer.beta_gradient();
    return s;
  });
}

// ---- The definitions, in long double. What is masked and set to zero is zero in x and dy here.

template <class Scalar>
Values unmasked(const WeightedProblem<Scalar>& p, const Flat<Scalar>& values) {
  const Values all = values.template cast<Real>();
  return p.outputs == MaskedOutputs::zero ? Values((p.weight_of_each == 0).select(Real(0), all)) : all;
}

template <class Scalar>
oracle::Statistics weighted_statistics(const WeightedProblem<Scalar>& p) {
  const auto channel = p.layout.channel_of_each();
  const Values x = unmasked(p, p.x);
  Values weight = Values::Zero(p.layout.channels());
  oracle::Statistics s{weight, weight};
  for (Index i = 0; i < x.size(); ++i) {
    weight[channel[i]] += p.weight_of_each[i];
    s.mean[channel[i]] += p.weight_of_each[i] * x[i];
  }
  s.mean /= weight;
  for (Index i = 0; i < x.size(); ++i) {
    s.var[channel[i]] += p.weight_of_each[i] * std::pow(x[i] - s.mean[channel[i]], 2);
  }
  s.var /= weight;
  return s;
}

template <class Scalar>
oracle::Gradients weighted_backward(const WeightedProblem<Scalar>& p, const oracle::Statistics& s,
                                    oracle::Statistic kind) {
  const auto channel = p.layout.channel_of_each();
  const Values x = unmasked(p, p.x), g = unmasked(p, p.dy), gamma = p.gamma.template cast<Real>();
  const Values inv_std = (s.var + static_cast<Real>(p.epsilon)).rsqrt();
  const bool zeroes = p.outputs == MaskedOutputs::zero;
  // The oracle's parameter gradients have no weights; with dy = 0 at what is masked and zeroed they are those wanted.
  Values centered = x;
  for (Index i = 0; i < x.size(); ++i) {
    if (zeroes && p.weight_of_each[i] == 0) centered[i] = s.mean[channel[i]];
  }
  oracle::Gradients all = oracle::backward(p.layout, centered, g, s, gamma, static_cast<Real>(p.epsilon), kind);
  Values weight = Values::Zero(p.layout.channels()), squares = weight, count = weight;
  for (Index i = 0; i < x.size(); ++i) {
    weight[channel[i]] += p.weight_of_each[i];
    squares[channel[i]] += g[i] * g[i];
    count[channel[i]] += 1;
  }
  for (Index i = 0; i < x.size(); ++i) {
    const Index c = channel[i];
    const Real scale = gamma[c] * inv_std[c], xhat = (centered[i] - s.mean[c]) * inv_std[c];
    const Real share = kind == oracle::Statistic::constant ? 0 : p.weight_of_each[i] / weight[c];
    const Real through_mean = share * all.dbeta.value[c], through_var = share * xhat * all.dgamma.value[c];
    all.dx.value[i] = scale * (g[i] - through_mean - through_var);
    all.dx.unit[i] = std::abs(scale) * std::max({std::abs(g[i]), share * std::sqrt(squares[c] * count[c]),
                                                 std::abs(through_mean), std::abs(through_var)});
    if (zeroes && p.weight_of_each[i] == 0) all.dx.value[i] = all.dx.unit[i] = 0;
  }
  return all;
}

template <class Scalar>
oracle::Result weighted_forward(const WeightedProblem<Scalar>& p, const oracle::Statistics& s) {
  oracle::Result y = oracle::forward(p.layout, unmasked(p, p.x), s, p.gamma.template cast<Real>(),
                                     p.beta.template cast<Real>(), static_cast<Real>(p.epsilon));
  for (Index i = 0; i < y.value.size(); ++i) {
    if (p.outputs == MaskedOutputs::zero && p.weight_of_each[i] == 0) y.value[i] = y.unit[i] = 0;
  }
  return y;
}

template <class Scalar>
void expect_weighted_matches_oracle(const WeightedProblem<Scalar>& p) {
  SCOPED_TRACE(text(p.layout));
  SCOPED_TRACE(p.outputs == MaskedOutputs::zero ? "zeroes" : "passes");
  for_each_target([&] {
    const WeightedStep<Scalar> s = run_weighted(p);
    const Real tensor = tolerance<Scalar>(Quantity::tensor, 10),
               parameter = tolerance<Scalar>(Quantity::parameter_gradient, 10),
               statistic = tolerance<Scalar>(Quantity::batch_statistic, 10);
    const oracle::Statistics batch = weighted_statistics(p);
    EXPECT_LE(error(s.mean, mean_of(batch)), statistic);
    EXPECT_LE(error(s.var, var_of(batch)), statistic);
    EXPECT_LE(error(s.y, weighted_forward(p, batch)), tensor);
    const auto trained = weighted_backward(p, batch, oracle::Statistic::of_the_batch);
    EXPECT_LE(error(s.dx, trained.dx), tensor);
    EXPECT_LE(error(s.dgamma, trained.dgamma), parameter);
    EXPECT_LE(error(s.dbeta, trained.dbeta), parameter);

    const Real total = p.weight_of_each.sum() / static_cast<Real>(p.layout.channels());
    EXPECT_NEAR(s.count, static_cast<double>(total), 1e-9 * static_cast<double>(total));
    const Values new_var = batch.var * total / (total - 1) / 10;
    EXPECT_LE(error(s.running_var, {9 / Real(10) + new_var, new_var.max(9 / Real(10))}), statistic);
    const oracle::Statistics running{s.running_mean.array().template cast<Real>(),
                                     s.running_var.array().template cast<Real>()};
    EXPECT_LE(error(s.eval_y, weighted_forward(p, running)), tensor);
    const auto frozen = weighted_backward(p, running, oracle::Statistic::constant);
    EXPECT_LE(error(s.eval_dx, frozen.dx), tensor);
    EXPECT_LE(error(s.eval_dgamma, frozen.dgamma), parameter);
    EXPECT_LE(error(s.eval_dbeta, frozen.dbeta), parameter);
  });
}

std::vector<Layout> weighted_layouts() {
  std::vector<Layout> all;
  const Index sizes[][3] = {{7, 3, 1},    {600, 17, 1}, {33, 64, 1}, {9, 5, 300}, {40, 9, 9},
                            {5000, 5, 1}, {9, 2, 5000}, {300, 1, 1}, {9, 5, 49}};
  for (const auto& [outer, channels, inner] : sizes) {
    all.push_back({{outer, channels, inner}, Order::row_major, 1});
    all.push_back({{inner, channels, outer}, Order::col_major, -2});
    all.push_back({{outer, inner, channels}, Order::row_major, -1});
  }
  return all;
}

template <class Scalar>
void expect_weighted_matches_oracle() {
  for (const Layout& layout : weighted_layouts()) {
    for (const Extent extent : {Extent::positions, Extent::samples}) {
      for (const MaskedOutputs outputs : {MaskedOutputs::zero, MaskedOutputs::normalize}) {
        expect_weighted_matches_oracle(weighted_problem<Scalar>(layout, extent, outputs));
      }
    }
  }
}

TEST(Weighted, FloatMatchesTheOracle) { expect_weighted_matches_oracle<float>(); }
TEST(Weighted, DoubleMatchesTheOracle) { expect_weighted_matches_oracle<double>(); }
TEST(Weighted, Bfloat16MatchesTheOracle) { expect_weighted_matches_oracle<Eigen::bfloat16>(); }

TEST(Weighted, WeightsOfPlacesAreShared) {
  expect_weighted_matches_oracle(
      weighted_problem<float>({{9, 5, 300}, Order::row_major, 1}, Extent::places, MaskedOutputs::zero));
  expect_weighted_matches_oracle(
      weighted_problem<float>({{300, 40, 5}, Order::row_major, -1}, Extent::places, MaskedOutputs::zero));
}

TEST(Weighted, TheSameBitsForAnyNumberOfThreads) {
  Eigen::ThreadPool pool(3);
  const Eigen::ThreadPoolDevice device(&pool, 3);
  for (const Layout& layout : {Layout{{20011, 17, 1}}, Layout{{16, 33, 625}}, Layout{{600, 64, 9}}}) {
    const auto p = weighted_problem<float>(layout, Extent::positions, MaskedOutputs::zero);
    const WeightedStep<float> serial = run_weighted(p), shared = run_weighted(p, device);
    std::apply(
        [&](const auto&... a) {
          std::apply([&](const auto&... b) { EXPECT_TRUE((same_bits(a, b) && ...)) << text(layout); }, shared.all());
        },
        serial.all());
  }
}

// ---- What weights mean.

using Table = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(Weighted, AWeightOfNCountsLikeNEqualRows) {
  const Table x = Table::Random(6, 3);
  const Eigen::MatrixXd repeats = (Eigen::MatrixXd(6, 1) << 1, 3, 0, 2, 1, 1).finished();
  const Table weights = repeats;
  Table repeated(8, 3);
  Index row = 0;
  for (Index n = 0; n < 6; ++n)
    for (int k = 0; k < weights(n, 0); ++k) repeated.row(row++) = x.row(n);
  BatchNorm<double> weighted(3), plain(3);
  Table y;
  weighted.forward_weighted(x, weights, y);
  plain.forward(repeated, y);
  EXPECT_TRUE(weighted.moments().mean.isApprox(plain.moments().mean, 1e-14));
  EXPECT_TRUE(weighted.moments().var().isApprox(plain.moments().var(), 1e-14));
  EXPECT_TRUE(weighted.running_var().isApprox(plain.running_var(), 1e-14));
}

TEST(Weighted, PaddingChangesNothing) {
  const Index length[] = {5, 3, 7};
  Eigen::Tensor<float, 3, Eigen::RowMajor> x(3, 7, 4), y, dx, dy(3, 7, 4), mask(3, 7, 1);
  x.setRandom();
  dy.setRandom();
  Eigen::MatrixXf packed(15, 4), packed_dy(15, 4), packed_y, packed_dx;
  Index row = 0;
  for (Index n = 0; n < 3; ++n) {
    for (Index t = 0; t < 7; ++t) {
      const bool is_value = t < length[n];
      mask(n, t, 0) = is_value ? 1.f : 0.f;
      for (Index c = 0; c < 4; ++c) {
        if (is_value) {
          packed(row, c) = x(n, t, c);
          packed_dy(row, c) = dy(n, t, c);
        } else {
          x(n, t, c) = std::numeric_limits<float>::quiet_NaN();
        }
      }
      row += is_value;
    }
  }
  BatchNorm<float> padded(4, {.axis = -1}), plain(4);
  padded.forward_weighted(x, mask, y);
  padded.backward_weighted(x, mask, dy, dx);
  plain.forward(packed, packed_y);
  plain.backward(packed, packed_dy, packed_dx);
  row = 0;
  for (Index n = 0; n < 3; ++n) {
    for (Index t = 0; t < 7; ++t) {
      for (Index c = 0; c < 4; ++c) {
        EXPECT_NEAR(y(n, t, c), t < length[n] ? packed_y(row, c) : 0, 2e-6);
        EXPECT_NEAR(dx(n, t, c), t < length[n] ? packed_dx(row, c) : 0, 2e-6);
      }
      row += t < length[n];
    }
  }
  EXPECT_TRUE(padded.gamma_gradient().isApprox(plain.gamma_gradient(), 1e-6f));
  EXPECT_TRUE(padded.running_var().isApprox(plain.running_var(), 1e-6));
}

TEST(Weighted, WithoutAnyWeightNothingFollows) {
  const Table x = Table::Random(6, 3), weights = Table::Zero(6, 1);
  BatchNorm<double> layer(3);
  Table y, dx;
  layer.forward_weighted(x, weights, y);
  layer.backward_weighted(x, weights, x, dx);
  EXPECT_EQ(y, Table::Zero(6, 3));
  EXPECT_EQ(dx, Table::Zero(6, 3));
  EXPECT_EQ(layer.batches_seen(), 0);
  EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXd::Zero(3));
}

TEST(Weighted, FiniteDifferences) {
  const Index rows = 9;
  const Table x = Table::Random(rows, 3), loss_weights = Table::Random(rows, 3);
  Table weights = Table::Random(rows, 1).cwiseAbs();
  weights(4, 0) = 0;
  for (const MaskedOutputs outputs : {MaskedOutputs::zero, MaskedOutputs::normalize}) {
    BatchNorm<double> layer(3);
    layer.gamma() << 0.5, -1, 2;
    Table y, dx;
    layer.forward_weighted(x, weights, y, outputs);
    layer.backward_weighted(x, weights, loss_weights, dx, outputs);
    const auto loss = [&](const Eigen::VectorXd& v) {
      BatchNorm<double> same = layer;
      Table result;
      same.forward_weighted(Table(v.reshaped<Eigen::RowMajor>(rows, 3)), weights, result, outputs);
      return result.cwiseProduct(loss_weights).sum();
    };
    const Eigen::VectorXd flat = x.reshaped<Eigen::RowMajor>();
    EXPECT_TRUE(dx.isApprox(Table(finite_differences(loss, flat, 1e-4).reshaped<Eigen::RowMajor>(rows, 3)), 1e-8));
  }
}

TEST(Weighted, RefusesWeightsWhoseSumIsInfinite) {
  BatchNorm<double> layer(3);
  const Table x = Table::Random(9, 3), weights = Table::Constant(9, 1, 1e308);
  Table y = Table::Constant(9, 3, -77);
  EXPECT_EQ(error_of([&] { layer.forward_weighted(x, weights, y); }),
            "batchnorm::forward_weighted: the weights add up to inf; that must be finite");
  EXPECT_EQ(y, Table::Constant(9, 3, -77));
}

TEST(Weighted, WithAnActivation) {
  const auto p = weighted_problem<float>({{40, 9, 9}, Order::row_major, 1}, Extent::positions, MaskedOutputs::zero);
  const auto map = [&](auto& values) { return tensor<3, Eigen::RowMajor>(values, p.layout); };
  Layout of_weights = p.layout;
  of_weights.dims = p.weight_dims;
  const auto x = map(p.x), dy = map(p.dy), weights = tensor<3, Eigen::RowMajor>(p.weights, of_weights);
  BatchNorm<float> plain = layer_of(p);
  BatchNorm<float, Relu> relu(p.layout.channels());
  relu.gamma() = p.gamma;
  relu.beta() = p.beta;
  Eigen::Tensor<float, 3, Eigen::RowMajor> y, dx, relu_y, relu_dx, g = dy;
  plain.forward_weighted(x, weights, y);
  for (Index i = 0; i < g.size(); ++i) g.data()[i] = y.data()[i] > 0 ? g.data()[i] : 0;
  plain.backward_weighted(x, weights, g, dx);
  relu.forward_weighted(x, weights, relu_y);
  relu.backward_weighted(x, weights, dy, relu_dx);
  for (Index i = 0; i < g.size(); ++i) {
    EXPECT_EQ(relu_y.data()[i], std::max(y.data()[i], 0.f));
    EXPECT_NEAR(relu_dx.data()[i], dx.data()[i], 2e-6);
  }
}

// ---- What is refused.

TEST(WeightedErrors, Weights) {
  using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
  Tensor x(4, 3, 5), y(4, 3, 5);
  x.setRandom();
  y.setConstant(-77);
  const Tensor before = y;
  BatchNorm<float> layer(3);
  const auto refused = [&](Index n, Index c, Index i, float weight) {
    Tensor weights(n, c, i);
    weights.setConstant(weight);
    return error_of([&] { layer.forward_weighted(x, weights, y); });
  };
  EXPECT_EQ(refused(4, 3, 5, 1),
            "batchnorm::forward_weighted: weights is 4x3x5; axis 1 must be 1, for all channels share them");
  EXPECT_EQ(refused(4, 1, 2, 1), "batchnorm::forward_weighted: weights is 4x1x2; axis 2 must be 1 or 5, as in x");
  const std::string rule = "; it must be finite and not negative, and in the range of the layer's parameters";
  EXPECT_EQ(refused(4, 1, 5, -1), "batchnorm::forward_weighted: a weight is -1" + rule);
  EXPECT_EQ(refused(4, 1, 5, std::numeric_limits<float>::quiet_NaN()),
            "batchnorm::forward_weighted: a weight is nan" + rule);
  for (const double weight : {1e-60, 1e300}) {
    Eigen::Tensor<double, 3, Eigen::RowMajor> wide(4, 1, 5);
    wide.setConstant(weight);
    EXPECT_EQ(error_of([&] { layer.forward_weighted(x, wide, y); }),
              "batchnorm::forward_weighted: a weight is " + std::string(weight < 1 ? "1e-60" : "1e+300") + rule);
  }
  Tensor one(4, 1, 5);
  one.setZero();
  one(1, 0, 1) = 1;
  EXPECT_EQ(error_of([&] { layer.forward_weighted(x, one, y); }),
            "batchnorm::forward_weighted: one value per channel has a weight; statistics of a batch need at "
            "least two (or SingleValue::allow)");
  EXPECT_EQ(refused(4, 1, 5, 0.03125f),
            "batchnorm::forward_weighted: the weights add up to 0.625; an unbiased running variance wants clearly more "
            "than 1 (or Variance::biased)");
  EXPECT_EQ(refused(4, 1, 5, 0.05f),
            "batchnorm::forward_weighted: the weights add up to 1.00000001490116; an unbiased running variance wants "
            "clearly more than 1 (or Variance::biased)");
  one.setZero();
  EXPECT_EQ(error_of([&] { layer.forward_weighted(x, one, y, MaskedOutputs::normalize); }),
            "batchnorm::forward_weighted: all weights are 0; there is nothing to normalize with (or "
            "MaskedOutputs::zero)");
  EXPECT_EQ(layer.batches_seen(), 0);
  for (Index i = 0; i < y.size(); ++i) EXPECT_EQ(y.data()[i], before.data()[i]);
  one.setConstant(2);
  layer.forward_weighted(x, one, y);
  Tensor others = one, dx;
  others(0, 0, 0) = 3;
  others(0, 0, 1) = 1;
  for (const bool training : {true, false}) {
    training ? layer.train() : layer.eval();
    layer.forward_weighted(x, one, y);
    EXPECT_EQ(error_of([&] { layer.backward_weighted(x, others, x, dx); }),
              "batchnorm::backward_weighted: weights are not those of the last forward_weighted");
    EXPECT_EQ(error_of([&] { layer.backward_weighted(x, one, x, dx, MaskedOutputs::normalize); }),
              "batchnorm::backward_weighted: outputs is not the MaskedOutputs of the last forward_weighted");
    layer.forward_weighted(x, one, y, MaskedOutputs::normalize);
    EXPECT_EQ(error_of([&] { layer.backward_weighted(x, one, x, dx); }),
              "batchnorm::backward_weighted: outputs is not the MaskedOutputs of the last forward_weighted");
    layer.forward_weighted(x, one, y);
    EXPECT_EQ(dx.size(), 0);
    layer.backward_weighted(x, one, x, dx);
    dx = Tensor();
  }
}

// A call that is refused leaves what the backward of the one before it needs.
TEST(WeightedErrors, RefusedForwardsAreForgotten) {
  using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
  Tensor x(4, 3, 5), weights(4, 1, 5), y, expected, dx;
  x.setRandom();
  weights.setRandom();
  BatchNorm<float> layer(3);
  layer.forward_weighted(x, weights, y);
  layer.backward_weighted(x, weights, x, expected);
  Tensor negative = weights;
  negative(3, 0, 4) = -1;
  EXPECT_NE(error_of([&] { layer.forward_weighted(x, negative, y); }), "");
  layer.backward_weighted(x, weights, x, dx);
  for (Index i = 0; i < dx.size(); ++i) EXPECT_EQ(dx.data()[i], expected.data()[i]);
}

TEST(Weighted, NoElements) {
  using Values = Eigen::Tensor<float, 3, Eigen::RowMajor>;
  for (const auto& [rows, length] : {std::pair<Index, Index>{0, 5}, {4, 0}, {0, 0}}) {
    const Values x(rows, 3, length), weights(rows, 1, length);
    BatchNorm<float> layer(3);
    Values y(9, 9, 9), dx;
    layer.forward_weighted(x, weights, y);
    EXPECT_EQ(y.dimensions(), x.dimensions());
    EXPECT_EQ(layer.running_mean(), Eigen::VectorXd::Zero(3));
    EXPECT_EQ(layer.batches_seen(), 0);
    layer.backward_weighted(x, weights, x, dx);
    EXPECT_EQ(dx.dimensions(), x.dimensions());
    EXPECT_EQ(layer.gamma_gradient(), Eigen::VectorXf::Zero(3));
  }
}

}  // namespace
}  // namespace batchnorm::test
