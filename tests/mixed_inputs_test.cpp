// Inputs of a call with different scalars: float, bfloat16 and half mix, and weights may be of any type.
#include "step.hpp"

namespace batchnorm::test {
namespace {

template <class Scalar>
using Tensor = Eigen::Tensor<Scalar, 3, Eigen::RowMajor>;

/// Values that every scalar below holds exactly: eighths of small numbers.
Flat<float> eighths(Index size, unsigned seed) {
  Random random(seed);
  return Flat<float>::NullaryExpr(size, [&] { return static_cast<float>(std::round(8 * random.normal()) / 8); });
}

template <class Scalar>
Tensor<Scalar> tensor_of(const Flat<float>& values, const Layout& layout) {
  const Flat<Scalar> cast = values.unaryExpr([](float v) { return static_cast<Scalar>(v); });
  return tensor<3, Eigen::RowMajor>(cast, layout);
}

/// The same values as tensors of other scalars. X is that of x, Z that of the residual and of outputs that are inputs
/// again, DY that of gradients and W that of weights.
template <class X, class Z, class DY, class W>
struct Inputs {
  using Gradient = Tensor<DY>;
  Layout layout;
  Tensor<X> x;
  Tensor<Z> z;
  Gradient dy;
  Tensor<W> weights;
  Options options;

  explicit Inputs(const Layout& of)
      : layout(of),
        x(tensor_of<X>(eighths(of.size(), 1), of)),
        z(tensor_of<Z>(eighths(of.size(), 2), of)),
        dy(tensor_of<DY>(eighths(of.size(), 3), of)),
        options{.axis = of.axis} {
    Eigen::DSizes<Index, 3> dims(of.dims[0], of.dims[1], of.dims[2]);
    dims[static_cast<std::size_t>(of.axis)] = 1;
    weights.resize(dims);
    for (Index i = 0; i < weights.size(); ++i) weights.data()[i] = static_cast<W>(static_cast<float>(i % 3 != 0));
  }
};

/// Results of every call that has several inputs, each with what one of its values is measured in: the largest.
class Results {
 public:
  template <class Values>
  void take(const std::string& name, const Values& values) {
    Flat<double> all(values.size());
    for (Index i = 0; i < all.size(); ++i) all[i] = static_cast<double>(values.data()[i]);
    results_.emplace_back(name, std::move(all));
  }

  void expect_near(const Results& expected, double tolerance) const {
    ASSERT_EQ(results_.size(), expected.results_.size());
    for (std::size_t k = 0; k < results_.size(); ++k) {
      SCOPED_TRACE(results_[k].first);
      const Flat<double>&actual = results_[k].second, &wanted = expected.results_[k].second;
      ASSERT_EQ(actual.size(), wanted.size());
      ASSERT_GT(wanted.size(), 0);
      EXPECT_LE((actual - wanted).abs().maxCoeff(), tolerance * wanted.abs().maxCoeff());
    }
  }

 private:
  std::vector<std::pair<std::string, Flat<double>>> results_;
};

template <class In>
void take_plain(const In& in, Results& to) {
  BatchNorm<typename decltype(in.x)::Scalar, Relu> layer(in.layout.channels(), in.options);
  Tensor<float> y, dx;
  for (const bool training : {true, false}) {
    training ? layer.train() : layer.eval();
    layer.forward(in.x, y);
    layer.backward(in.x, in.dy, dx);
    to.take("backward dx", dx);
    layer.backward_parameters(in.x, in.dy);
    to.take("backward dgamma", layer.gamma_gradient());
    to.take("backward dbeta", layer.beta_gradient());
  }
}

/// The residual stands for the output, whose values are exact.
template <class In>
void take_residual(const In& in, Results& to) {
  BatchNorm<typename decltype(in.x)::Scalar, ClippedRelu> layer(in.layout.channels(), in.options, ClippedRelu(1.5));
  Tensor<float> y, dx;
  typename In::Gradient dz;
  for (const bool training : {true, false}) {
    training ? layer.train() : layer.eval();
    layer.forward_add(in.x, in.z, y);
    to.take("forward_add y", y);
    layer.backward_add(in.x, in.dy, dx, dz);
    to.take("backward_add dx", dx);
    to.take("backward_add dz", dz);
    to.take("backward_add dgamma", layer.gamma_gradient());
    layer.infer_add(in.x, in.z, y);
    to.take("infer_add y", y);
  }
}

template <class In>
void take_weighted(const In& in, Results& to) {
  BatchNorm<typename decltype(in.x)::Scalar> layer(in.layout.channels(), in.options);
  Tensor<float> y, dx;
  for (const MaskedOutputs outputs : {MaskedOutputs::zero, MaskedOutputs::normalize}) {
    layer.forward_weighted(in.x, in.weights, y, outputs);
    to.take("forward_weighted y", y);
    layer.backward_weighted(in.x, in.weights, in.dy, dx, outputs);
    to.take("backward_weighted dx", dx);
    to.take("backward_weighted dgamma", layer.gamma_gradient());
  }
}

/// The residual stands for the output, whose values are exact.
template <class In>
void take_from_output(const In& in, Results& to) {
  BatchNorm<typename decltype(in.x)::Scalar, LeakyRelu> layer(in.layout.channels(), in.options, LeakyRelu(0.5));
  Tensor<float> y, dx;
  layer.forward(in.x, y);
  layer.backward_from_output(in.z, in.dy, dx);
  to.take("backward_from_output dx", dx);
  to.take("backward_from_output dgamma", layer.gamma_gradient());
}

template <class In>
void take_functions(const In& in, Results& to) {
  Moments moments;
  GradientSums sums;
  collect_moments(in.x, moments, in.options);
  collect_gradients(in.x, in.dy, moments, sums, in.options);
  to.take("collect_gradients", sums.dy_centered);
  Tensor<float> dx;
  const Eigen::VectorXf gamma = Eigen::VectorXf::LinSpaced(in.layout.channels(), 0.5F, 1.5F);
  input_gradient(in.x, in.dy, moments, gamma, sums, dx, in.options);
  to.take("input_gradient dx", dx);
  PerSample<float> dgamma, dbeta;
  const PerSample<float> gammas = gamma.transpose().replicate(in.layout.dims[0], 1);
  backward_per_sample(in.x, in.dy, moments, gammas, dx, dgamma, dbeta, in.options);
  to.take("backward_per_sample dx", dx);
  to.take("backward_per_sample dgamma", dgamma);
  Tensor<float> ty, x_gradient, dy_gradient;
  Eigen::VectorXf gamma_gradient;
  for (const Statistics statistics : {Statistics::of_batch, Statistics::constant}) {
    const Direction direction{in.z, gamma, gamma};
    jvp(in.x, moments, gamma, direction, ty, in.options, statistics);
    to.take("jvp ty", ty);
    double_backward(in.x, in.dy, moments, gamma, direction, SecondGradients{x_gradient, dy_gradient, gamma_gradient},
                    in.options, statistics);
    to.take("double_backward x", x_gradient);
    to.take("double_backward dy", dy_gradient);
    to.take("double_backward gamma", gamma_gradient);
  }
}

template <class In>
Results results(const Layout& layout) {
  const In in(layout);
  Results all;
  take_plain(in, all);
  take_residual(in, all);
  take_weighted(in, all);
  take_from_output(in, all);
  take_functions(in, all);
  return all;
}

TEST(MixedInputs, CountLikeFloatsOfTheSameValue) {
  using Floats = Inputs<float, float, float, float>;
  using Mixed = Inputs<Eigen::bfloat16, float, Eigen::half, bool>;
  for (const Layout& layout : {Layout{{3, 5, 301}},
                               {{40, 37, 1}},
                               {{70, 3, 1}},
                               {{21, 5, 7}},
                               {{70, 5, 49}},
                               {{20, 5, 144}},
                               {{2, 3, 9000}}}) {
    SCOPED_TRACE(text(layout));
    for_each_target([&] { results<Mixed>(layout).expect_near(results<Floats>(layout), 1e-6); });
  }
}

}  // namespace
}  // namespace batchnorm::test
