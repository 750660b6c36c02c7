/// One training step and one inference of a layer on any layout, and their comparison with the oracle.
#pragma once

#include <gtest/gtest.h>

#include <batchnorm/batchnorm.hpp>
#include <cstring>
#include <tuple>
#include <unsupported/Eigen/CXX11/Tensor>

#include "accuracy.hpp"
#include "cases.hpp"

namespace batchnorm::test {

/// Everything a layer puts out in a training step, and then in eval mode on the same tensor.
template <class Scalar>
struct Step {
  using Statistic = StatisticOf<Scalar>;
  Flat<Scalar> y, dx, eval_y, eval_dx, infer_y;
  Vector<ParameterOf<Scalar>> dgamma, dbeta, eval_dgamma, eval_dbeta;
  Vector<Statistic> mean, var, running_mean, running_var;

  auto all() const {
    return std::tie(y, dx, eval_y, eval_dx, infer_y, dgamma, dbeta, eval_dgamma, eval_dbeta, mean, var, running_mean,
                    running_var);
  }
};

template <class Values>
bool same_bits(const Values& a, const Values& b) {
  const std::size_t bytes = static_cast<std::size_t>(a.size()) * sizeof(typename Values::Scalar);
  return a.size() == b.size() && (bytes == 0 || std::memcmp(a.data(), b.data(), bytes) == 0);
}

template <class Scalar>
bool same_bits(const Step<Scalar>& a, const Step<Scalar>& b) {
  const auto all_same = [&](const auto&... of_a) {
    return std::apply([&](const auto&... of_b) { return (same_bits(of_a, of_b) && ...); }, b.all());
  };
  return std::apply(all_same, a.all());
}

/// Calls `f.template operator()<Options>()` with the storage order of `layout`.
template <class F>
auto with_order(const Layout& layout, const F& f) {
  return layout.order == Order::row_major ? f.template operator()<Eigen::RowMajor>()
                                          : f.template operator()<Eigen::ColMajor>();
}

/// Calls `f.template operator()<Rank, Options>()` with the rank and storage order of `layout`.
template <class F>
auto with_rank_and_order(const Layout& layout, const F& f) {
  const auto with_rank = [&]<int Rank>() {
    return with_order(layout, [&]<int Options>() { return f.template operator()<Rank, Options>(); });
  };
  switch (layout.rank()) {
    case 2:
      return with_rank.template operator()<2>();
    case 3:
      return with_rank.template operator()<3>();
    case 4:
      return with_rank.template operator()<4>();
    default:
      return with_rank.template operator()<5>();
  }
}

/// The flat values as a tensor of the given layout.
template <int Rank, int Options, class Values>
auto tensor(Values& values, const Layout& layout) {
  using Scalar = std::remove_pointer_t<decltype(values.data())>;
  Eigen::DSizes<Index, Rank> dims;
  for (std::size_t d = 0; d < Rank; ++d) dims[d] = layout.dims[d];
  return Eigen::TensorMap<Eigen::Tensor<Scalar, Rank, Options>>(values.data(), dims);
}

template <class Scalar>
BatchNorm<Scalar> layer_of(const Problem<Scalar>& p, Options options = {}) {
  options.axis = p.layout.axis;
  options.epsilon = p.epsilon;
  BatchNorm<Scalar> layer(p.layout.channels(), options);
  layer.gamma() = p.gamma;
  layer.beta() = p.beta;
  return layer;
}

/// On `device`, or without one.
template <class Scalar, class... Device>
Step<Scalar> run_step(const Problem<Scalar>& p, const Device&... device) {
  return with_rank_and_order(p.layout, [&]<int Rank, int Options>() {
    const auto map = [&](auto& values) { return tensor<Rank, Options>(values, p.layout); };
    Step<Scalar> s;
    s.y = s.dx = s.eval_y = s.eval_dx = s.infer_y = Flat<Scalar>::Constant(p.x.size(), Scalar(-77));
    const auto x = map(p.x), dy = map(p.dy);
    auto y = map(s.y), dx = map(s.dx), eval_y = map(s.eval_y), eval_dx = map(s.eval_dx), infer_y = map(s.infer_y);

    BatchNorm<Scalar> layer = layer_of(p);
    layer.forward(device..., x, y);
    layer.backward(device..., x, dy, dx);
    s.dgamma = layer.gamma_gradient();
    s.dbeta = layer.beta_gradient();
    s.mean = layer.moments().mean;
    s.var = layer.moments().var();
    s.running_mean = layer.running_mean();
    s.running_var = layer.running_var();

    layer.eval();
    layer.zero_gradients();
    layer.infer(device..., x, infer_y);
    layer.forward(device..., x, eval_y);
    layer.backward(device..., x, dy, eval_dx);
    s.eval_dgamma = layer.gamma_gradient();
    s.eval_dbeta = layer.beta_gradient();
    return s;
  });
}

// Every rank and order is compiled once, in the tests of the cases.
extern template Step<Eigen::bfloat16> run_step(const Problem<Eigen::bfloat16>&);
extern template Step<Eigen::half> run_step(const Problem<Eigen::half>&);
extern template Step<float> run_step(const Problem<float>&);
extern template Step<double> run_step(const Problem<double>&);

/// Running statistics after one batch by the default rule: 0.9 of the initial 0 and 1, 0.1 of the new (unbiased).
inline std::pair<oracle::Result, oracle::Result> running_after_one(const oracle::Statistics& batch, Index count) {
  const Real weight = static_cast<Real>(0.1), bessel = static_cast<Real>(count) / static_cast<Real>(count - 1);
  const Values mean = weight * batch.mean, new_var = weight * bessel * batch.var;
  const Values mean_unit = mean.abs().max(weight * batch.var.sqrt());
  return {{mean, mean_unit}, {1 - weight + new_var, new_var.max(1 - weight)}};
}

/// `condition`: the largest |mean| / std of a channel.
template <class Scalar>
void expect_matches_oracle(const Problem<Scalar>& p, const Step<Scalar>& s, Real condition = 10) {
  const Values x = p.x.template cast<Real>(), dy = p.dy.template cast<Real>();
  const Values gamma = p.gamma.template cast<Real>(), beta = p.beta.template cast<Real>();
  const Real epsilon = static_cast<Real>(p.epsilon);
  const auto allowed = [&](Quantity quantity) { return tolerance<Scalar>(quantity, condition); };

  const oracle::Statistics batch = oracle::statistics(p.layout, x);
  EXPECT_LE(error(s.mean, mean_of(batch)), allowed(Quantity::batch_statistic));
  EXPECT_LE(error(s.var, var_of(batch)), allowed(Quantity::batch_statistic));
  EXPECT_LE(error(s.y, oracle::forward(p.layout, x, batch, gamma, beta, epsilon)), allowed(Quantity::tensor));
  const auto trained = oracle::backward(p.layout, x, dy, batch, gamma, epsilon, oracle::Statistic::of_the_batch);
  EXPECT_LE(error(s.dx, trained.dx), allowed(Quantity::tensor));
  EXPECT_LE(error(s.dgamma, trained.dgamma), allowed(Quantity::parameter_gradient));
  EXPECT_LE(error(s.dbeta, trained.dbeta), allowed(Quantity::parameter_gradient));

  const auto [mean, var] = running_after_one(batch, p.layout.count());
  EXPECT_LE(error(s.running_mean, mean), allowed(Quantity::running_statistic));
  EXPECT_LE(error(s.running_var, var), allowed(Quantity::running_statistic));

  const oracle::Statistics running{s.running_mean.array().template cast<Real>(),
                                   s.running_var.array().template cast<Real>()};
  EXPECT_LE(error(s.eval_y, oracle::forward(p.layout, x, running, gamma, beta, epsilon)), allowed(Quantity::tensor));
  EXPECT_TRUE((s.infer_y == s.eval_y).all());
  const auto frozen = oracle::backward(p.layout, x, dy, running, gamma, epsilon, oracle::Statistic::constant);
  EXPECT_LE(error(s.eval_dx, frozen.dx), allowed(Quantity::tensor));
  EXPECT_LE(error(s.eval_dgamma, frozen.dgamma), allowed(Quantity::parameter_gradient));
  EXPECT_LE(error(s.eval_dbeta, frozen.dbeta), allowed(Quantity::parameter_gradient));
}

/// The text of the Error that `f` throws.
template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// Restores the instruction set at the end of a scope.
class TargetGuard {
 public:
  TargetGuard() = default;
  ~TargetGuard() { set_target(before_); }
  TargetGuard(const TargetGuard&) = delete;
  TargetGuard& operator=(const TargetGuard&) = delete;

 private:
  Target before_ = active_target();
};

/// The instruction sets that this build and this CPU offer.
inline std::vector<Target> available_targets() {
  const TargetGuard guard;
  std::vector<Target> available;
  for (const Target target : {Target::scalar, Target::baseline, Target::avx2, Target::avx512}) {
    try {
      set_target(target);
      available.push_back(target);
    } catch (const Error&) {
    }
  }
  return available;
}

/// Calls `f` under every available target, named in the trace of a failure.
template <class F>
void for_each_target(const F& f) {
  const TargetGuard guard;
  for (const Target target : available_targets()) {
    SCOPED_TRACE(name(target));
    set_target(target);
    f();
  }
}

/// Reaches memory in another way while it lives.
class AccessGuard {
 public:
  explicit AccessGuard(const detail::MemoryAccess& access) { detail::memory_access() = access; }
  ~AccessGuard() { detail::memory_access() = before_; }
  AccessGuard(const AccessGuard&) = delete;
  AccessGuard& operator=(const AccessGuard&) = delete;

 private:
  const detail::MemoryAccess before_ = detail::memory_access();
};

template <class Scalar>
void expect_matches_oracle_on_every_target(const Problem<Scalar>& p, Real condition = 10) {
  SCOPED_TRACE(text(p.layout));
  for_each_target([&] { expect_matches_oracle(p, run_step(p), condition); });
}

}  // namespace batchnorm::test
