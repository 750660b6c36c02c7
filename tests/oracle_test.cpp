// The oracle itself: against hand-worked numbers, Eigen's own indexing and the definition of a derivative.
#include "oracle.hpp"

#include <gtest/gtest.h>

#include <random>
#include <unsupported/Eigen/CXX11/Tensor>

#include "finite_differences.hpp"

namespace oracle {
namespace {

Values random_values(Index size, unsigned seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<Real> normal(0.5L, 1.5L);
  return Values::NullaryExpr(size, [&] { return normal(generator); });
}

template <int Options>
void expect_coordinates_of_eigen(Order order) {
  Eigen::Tensor<Index, 4, Options> coordinate(2, 3, 4, 5);
  for (int axis = -4; axis < 4; ++axis) {
    for (Index i = 0; i < 2; ++i)
      for (Index j = 0; j < 3; ++j)
        for (Index k = 0; k < 4; ++k)
          for (Index l = 0; l < 5; ++l)
            coordinate(i, j, k, l) = Eigen::array<Index, 4>{i, j, k, l}[static_cast<std::size_t>((axis + 4) % 4)];
    const Layout layout{{2, 3, 4, 5}, order, axis};
    for (Index i = 0; i < layout.size(); ++i) ASSERT_EQ(layout.channel_of(i), coordinate.data()[i]) << "axis " << axis;
  }
}

TEST(Oracle, FindsTheChannelWhereEigenPutsIt) {
  expect_coordinates_of_eigen<Eigen::RowMajor>(Order::row_major);
  expect_coordinates_of_eigen<Eigen::ColMajor>(Order::col_major);
}

TEST(Oracle, WorkedExample) {
  const Layout layout{{4, 1}, Order::row_major, 1};
  const Values x{{1, 3, 5, 7}}, dy{{1, 0, 0, 2}};
  const Values gamma{{3}}, beta{{10}};
  const Statistics s = statistics(layout, x);
  EXPECT_EQ(s.mean[0], 4);
  EXPECT_EQ(s.var[0], 5);
  // With epsilon 4, inv_std is 1/3, gamma * inv_std is 1 and xhat is -1, -1/3, 1/3, 1.
  const Result y = forward(layout, x, s, gamma, beta, 4);
  EXPECT_TRUE(y.value.isApprox(Values{{7, 9, 11, 13}}, 1e-18L));
  EXPECT_TRUE(y.unit.isApprox(Values{{10, 10, 10, 10}}, 1e-18L));
  const Gradients g = backward(layout, x, dy, s, gamma, 4, Statistic::of_the_batch);
  EXPECT_NEAR(static_cast<double>(g.dbeta.value[0]), 3, 1e-15);
  EXPECT_NEAR(static_cast<double>(g.dgamma.value[0]), 1, 1e-15);
  const Values dx{{1 - 0.75L + 0.25L, -0.75L + 0.25L / 3, -0.75L - 0.25L / 3, 2 - 0.75L - 0.25L}};
  EXPECT_TRUE(g.dx.value.isApprox(dx, 1e-18L));
  EXPECT_TRUE(backward(layout, x, dy, s, gamma, 4, Statistic::constant).dx.value.isApprox(dy, 1e-18L));
}

TEST(Oracle, GradientsAreThoseOfForward) {
  const Real epsilon = 0.01L, step = 1e-3L, tolerance = 1e-9L;
  for (const Layout& layout : {Layout{{3, 2, 4}, Order::row_major, 1}, Layout{{3, 2, 4}, Order::col_major, -1}}) {
    const Values x = random_values(layout.size(), 1), dy = random_values(layout.size(), 2);
    const Values gamma = random_values(layout.channels(), 3), beta = random_values(layout.channels(), 4);
    const Statistics batch = statistics(layout, x), other{beta, gamma.square()};
    for (const Statistic kind : {Statistic::of_the_batch, Statistic::constant}) {
      const auto loss = [&](const Values& at, const Values& scale, const Values& shift) {
        const Statistics s = kind == Statistic::constant ? other : statistics(layout, at);
        return (forward(layout, at, s, scale, shift, epsilon).value * dy).sum();
      };
      const Gradients g = backward(layout, x, dy, kind == Statistic::constant ? other : batch, gamma, epsilon, kind);
      using batchnorm::test::finite_differences;
      const Values dx = finite_differences([&](const Values& at) { return loss(at, gamma, beta); }, x, step);
      const Values dgamma = finite_differences([&](const Values& at) { return loss(x, at, beta); }, gamma, step);
      const Values dbeta = finite_differences([&](const Values& at) { return loss(x, gamma, at); }, beta, step);
      EXPECT_TRUE(g.dx.value.isApprox(dx, tolerance));
      EXPECT_TRUE(g.dgamma.value.isApprox(dgamma, tolerance));
      EXPECT_TRUE(g.dbeta.value.isApprox(dbeta, tolerance));
    }
  }
}

}  // namespace
}  // namespace oracle
