// PyTorch's answers (golden/make_golden.py): several steps of training with gradient descent, then inference.
#include "golden/golden.hpp"

#include "step.hpp"

namespace batchnorm::test {
namespace {

template <class Scalar>
Flat<Scalar> flat(const golden::Numbers& numbers) {
  return Eigen::Map<const Flat<double>>(numbers.data(), static_cast<Index>(numbers.size())).template cast<Scalar>();
}

/// `tolerance` is relative to the largest of the numbers. None may be missing on either side.
template <class Actual>
void expect_near(const char* what, const Actual& actual, const golden::Numbers& numbers, double tolerance) {
  const Flat<double> expected = flat<double>(numbers);
  ASSERT_EQ(actual.size(), expected.size()) << what;
  if (expected.size() == 0) return;
  const double difference = (actual.array().template cast<double>() - expected).abs().maxCoeff();
  EXPECT_LE(difference, tolerance * expected.abs().maxCoeff()) << what;
}

template <class Scalar>
void expect_answers(const BatchNorm<Scalar>& layer, const Flat<Scalar>& y, const Flat<Scalar>& dx,
                    const golden::Outputs& expected, double tolerance) {
  expect_near("y", y, expected.y, tolerance);
  expect_near("dx", dx, expected.dx, tolerance);
  expect_near("dgamma", layer.gamma_gradient(), expected.dgamma, tolerance);
  expect_near("dbeta", layer.beta_gradient(), expected.dbeta, tolerance);
  expect_near("running_mean", layer.running_mean(), expected.running_mean, tolerance);
  expect_near("running_var", layer.running_var(), expected.running_var, tolerance);
}

template <class Scalar, int Rank>
void follow(const golden::Run& run, golden::Outputs golden::Step::*outputs, double tolerance) {
  constexpr Scalar rate = Scalar(0.5);
  const Layout layout{run.dims, Order::row_major, 1};
  BatchNorm<Scalar> layer(layout.channels(), {.epsilon = run.epsilon, .average = run.average, .affine = run.affine});
  if (run.affine == Affine::scale_and_shift) {
    layer.gamma() = flat<Scalar>(run.gamma);
    layer.beta() = flat<Scalar>(run.beta);
  }
  for (const golden::Step& step : run.steps) {
    SCOPED_TRACE(testing::Message() << run.name << ", step " << &step - run.steps.data());
    if (&step == &run.steps.back()) layer.eval();
    const Flat<Scalar> x = flat<Scalar>(step.x), dy = flat<Scalar>(step.dy);
    Flat<Scalar> y(x.size()), dx(x.size());
    auto y_tensor = tensor<Rank, Eigen::RowMajor>(y, layout), dx_tensor = tensor<Rank, Eigen::RowMajor>(dx, layout);
    layer.zero_gradients();
    layer.forward(tensor<Rank, Eigen::RowMajor>(x, layout), y_tensor);
    layer.backward(tensor<Rank, Eigen::RowMajor>(x, layout), tensor<Rank, Eigen::RowMajor>(dy, layout), dx_tensor);
    expect_answers(layer, y, dx, step.*outputs, tolerance);
    layer.gamma() -= rate * layer.gamma_gradient();
    layer.beta() -= rate * layer.beta_gradient();
  }
}

template <class Scalar>
void follow_every_run(golden::Outputs golden::Step::*outputs, double tolerance) {
  for (const golden::Run& run : golden::runs) {
    switch (run.dims.size()) {
      case 2:
        follow<Scalar, 2>(run, outputs, tolerance);
        break;
      case 3:
        follow<Scalar, 3>(run, outputs, tolerance);
        break;
      case 4:
        follow<Scalar, 4>(run, outputs, tolerance);
        break;
      default:
        follow<Scalar, 5>(run, outputs, tolerance);
    }
  }
}

TEST(Golden, DoubleAnswersLikePyTorch) { follow_every_run<double>(&golden::Step::in_double, 1e-13); }

// PyTorch's own rounding in float sets the tolerance here.
TEST(Golden, FloatAnswersLikePyTorch) { follow_every_run<float>(&golden::Step::in_float, 2e-6); }

}  // namespace
}  // namespace batchnorm::test
