/// A layer with an activation, with or without a residual, and its comparison with the oracle.
#pragma once

#include <limits>

#include "step.hpp"

namespace batchnorm::test {

/// An activation by its definition.
struct Definition {
  Real slope = 0, cap = std::numeric_limits<Real>::infinity();
  Real operator()(Real v) const { return v > cap ? cap : v > 0 ? v : slope * v; }
  Real derivative(Real v) const { return v > cap ? 0 : v > 0 ? 1 : slope; }
  /// Distance to the nearest place where the derivative jumps.
  Real distance(Real v) const { return std::min(std::abs(v), std::abs(v - cap)); }
};

inline Definition definition_of(Identity) { return {1}; }
inline Definition definition_of(Relu) { return {}; }
inline Definition definition_of(const LeakyRelu& a) { return {static_cast<Real>(a.slope())}; }
inline Definition definition_of(const ClippedRelu& a) { return {0, static_cast<Real>(a.cap())}; }

/// A ReLU that does not say that it has two slopes.
struct OwnRelu {
  std::array<double, 0> values() const { return {}; }
  template <class V>
  static void apply(V& v, const V* constants) {
    Relu::apply(v, constants);
  }
  template <class V>
  static void differentiate(const V& v, V& g, const V* constants) {
    Relu::differentiate(v, g, constants);
  }
};
static_assert(!BatchNorm<float, OwnRelu>::keeps_slopes && BatchNorm<float, Relu>::keeps_slopes);
inline Definition definition_of(OwnRelu) { return {}; }

/// The values and gradients of one training step, then of eval mode, then inference.
template <class Scalar>
struct Fused {
  Flat<Scalar> y, dx, dz, eval_y, eval_dx, eval_dz, infer_y;
  Vector<ParameterOf<Scalar>> dgamma, dbeta, eval_dgamma, eval_dbeta;
  Vector<StatisticOf<Scalar>> running_mean, running_var;
  auto all() const {
    return std::tie(y, dx, dz, eval_y, eval_dx, eval_dz, infer_y, dgamma, dbeta, eval_dgamma, eval_dbeta);
  }
};

enum class Residual { none, added };

template <class Scalar>
struct FusedProblem : Problem<Scalar> {
  Flat<Scalar> z;
  Residual residual;
};

template <class Scalar, class Act, class... Device>
Fused<Scalar> run_fused(const FusedProblem<Scalar>& p, const Act& activation, const Device&... device) {
  return with_order(p.layout, [&]<int Order>() {
    const auto map = [&](auto& values) { return tensor<3, Order>(values, p.layout); };
    Fused<Scalar> s;
    s.y = s.dx = s.dz = s.eval_y = s.eval_dx = s.eval_dz = s.infer_y = Flat<Scalar>::Constant(p.x.size(), Scalar(-77));
    const auto x = map(p.x), dy = map(p.dy), z = map(p.z);
    BatchNorm<Scalar, Act> layer(p.layout.channels(), {.epsilon = p.epsilon, .axis = p.layout.axis}, activation);
    layer.gamma() = p.gamma;
    layer.beta() = p.beta;
    const auto step = [&](auto& of_y, auto& of_dx, auto& of_dz) {
      auto y = map(of_y), dx = map(of_dx), dz = map(of_dz);
      layer.zero_gradients();
      if (p.residual == Residual::added) {
        layer.forward_add(device..., x, z, y);
        if constexpr (layer.keeps_slopes) {
          layer.backward_add(device..., x, dy, dx, dz);
        } else {
          layer.backward_add(device..., x, y, dy, dx, dz);
        }
      } else {
        layer.forward(device..., x, y);
        layer.backward(device..., x, dy, dx);
      }
    };
    step(s.y, s.dx, s.dz);
    s.dgamma = layer.gamma_gradient();
    s.dbeta = layer.beta_gradient();
    s.running_mean = layer.running_mean();
    s.running_var = layer.running_var();
    layer.eval();
    step(s.eval_y, s.eval_dx, s.eval_dz);
    s.eval_dgamma = layer.gamma_gradient();
    s.eval_dbeta = layer.beta_gradient();
    auto infer_y = map(s.infer_y);
    if (p.residual == Residual::added) {
      layer.infer_add(device..., x, z, infer_y);
    } else {
      layer.infer(device..., x, infer_y);
    }
    return s;
  });
}

/// What the oracle makes of a step with given statistics.
struct Expected {
  oracle::Result y;
  Values g;  // the gradient before the activation
  oracle::Gradients gradients;
};

template <class Scalar>
Expected expected(const FusedProblem<Scalar>& p, const Definition& act, const oracle::Statistics& s,
                  oracle::Statistic kind) {
  const Values x = p.x.template cast<Real>(), gamma = p.gamma.template cast<Real>();
  const auto epsilon = static_cast<Real>(p.epsilon);
  Expected e;
  e.y = oracle::forward(p.layout, x, s, gamma, p.beta.template cast<Real>(), epsilon);
  e.g = p.dy.template cast<Real>();
  for (Index i = 0; i < x.size(); ++i) {
    const Real z = p.residual == Residual::added ? static_cast<Real>(p.z[i]) : 0, v = e.y.value[i] + z;
    e.y.value[i] = act(v);
    e.y.unit[i] = std::max(e.y.unit[i], std::abs(z));
    e.g[i] *= act.derivative(v);
  }
  e.gradients = oracle::backward(p.layout, x, e.g, s, gamma, epsilon, kind);
  return e;
}

/// Where the activation has a kink within rounding, there is no gradient to compare: dy is 0 there.
template <class Scalar>
void avoid_kinks(FusedProblem<Scalar>& p, const Definition& act, const oracle::Statistics& s) {
  const Values v = expected(p, {1}, s, oracle::Statistic::constant).y.value;
  const Real near_by = sizeof(Scalar) == 2 ? 2e-2L : 1e-5L;
  for (Index i = 0; i < v.size(); ++i) {
    if (act.distance(v[i]) < near_by) p.dy[i] = Scalar(0);
  }
}

template <class Scalar, class Act>
FusedProblem<Scalar> fused_problem(const Layout& layout, const Act& activation, Residual residual) {
  FusedProblem<Scalar> p{random_problem<Scalar>(layout), Random(3).flat<Scalar>(layout.size()), residual};
  const auto batch = oracle::statistics(layout, p.x.template cast<Real>());
  const auto [mean, var] = running_after_one(batch, layout.count());
  avoid_kinks(p, definition_of(activation), batch);
  avoid_kinks(p, definition_of(activation), {mean.value, var.value});
  return p;
}

template <class Scalar, class Act>
void expect_fused_matches_oracle(const Layout& layout, const Act& activation, Residual residual) {
  SCOPED_TRACE(text(layout));
  SCOPED_TRACE(residual == Residual::added ? "with a residual" : "without a residual");
  const auto p = fused_problem<Scalar>(layout, activation, residual);
  const Definition act = definition_of(activation);
  const auto batch = oracle::statistics(layout, p.x.template cast<Real>());
  for_each_target([&] {
    const Fused<Scalar> s = run_fused(p, activation);
    const oracle::Statistics running{s.running_mean.array().template cast<Real>(),
                                     s.running_var.array().template cast<Real>()};
    const Expected trained = expected(p, act, batch, oracle::Statistic::of_the_batch);
    const Expected frozen = expected(p, act, running, oracle::Statistic::constant);
    const Real tensor = tolerance<Scalar>(Quantity::tensor, 10),
               parameter = tolerance<Scalar>(Quantity::parameter_gradient, 10);
    EXPECT_LE(error(s.y, trained.y), tensor);
    EXPECT_LE(error(s.eval_y, frozen.y), tensor);
    EXPECT_TRUE((s.infer_y == s.eval_y).all());
    if (residual == Residual::added) {
      EXPECT_LE(error(s.dz, {trained.g, trained.g.abs()}), tensor);
      EXPECT_LE(error(s.eval_dz, {frozen.g, frozen.g.abs()}), tensor);
    }
    EXPECT_LE(error(s.dx, trained.gradients.dx), tensor);
    EXPECT_LE(error(s.eval_dx, frozen.gradients.dx), tensor);
    EXPECT_LE(error(s.dgamma, trained.gradients.dgamma), parameter);
    EXPECT_LE(error(s.dbeta, trained.gradients.dbeta), parameter);
    EXPECT_LE(error(s.eval_dgamma, frozen.gradients.dgamma), parameter);
    EXPECT_LE(error(s.eval_dbeta, frozen.gradients.dbeta), parameter);
  });
}

/// Short and long runs, rows, folded rows, more than one part; in both storage orders.
inline std::vector<Layout> fused_layouts() {
  std::vector<Layout> all;
  const Index sizes[][3] = {{7, 3, 1},    {600, 17, 1}, {33, 64, 1},  {3, 5, 300}, {40, 9, 9}, {5000, 5, 1},
                            {9, 2, 5000}, {20, 5, 144}, {4, 7, 9001}, {3, 5, 49},  {70, 3, 49}};
  for (const auto& [outer, channels, inner] : sizes) {
    all.push_back({{outer, channels, inner}, Order::row_major, 1});
    all.push_back({{inner, channels, outer}, Order::col_major, -2});
  }
  return all;
}

template <class Scalar, class Act>
void expect_fused_matches_oracle(const Act& activation) {
  for (const Layout& layout : fused_layouts()) {
    expect_fused_matches_oracle<Scalar>(layout, activation, Residual::none);
    expect_fused_matches_oracle<Scalar>(layout, activation, Residual::added);
  }
}

}  // namespace batchnorm::test
