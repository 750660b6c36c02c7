// 16-bit tensors: the table of cases, and every value there is.
#include <bit>

#include "step.hpp"

namespace batchnorm::test {

template Step<Eigen::bfloat16> run_step(const Problem<Eigen::bfloat16>&);
template Step<Eigen::half> run_step(const Problem<Eigen::half>&);

namespace {

template <class Scalar>
class SixteenBits : public testing::Test {};

using Types = testing::Types<Eigen::bfloat16, Eigen::half>;
TYPED_TEST_SUITE(SixteenBits, Types, );

TYPED_TEST(SixteenBits, EveryLayoutOnEveryTargetMatchesTheOracle) {
  for (const Layout& layout : cases()) expect_matches_oracle_on_every_target(random_problem<TypeParam>(layout));
}

/// One channel of every value of the type, so many times.
template <class Scalar>
Eigen::Tensor<Scalar, 2, Eigen::RowMajor> all_values(Index times) {
  Eigen::Tensor<Scalar, 2, Eigen::RowMajor> x(times << 16, 1);
  for (Index i = 0; i < x.size(); ++i) x(i, 0) = std::bit_cast<Scalar>(static_cast<std::uint16_t>(i % (1 << 16)));
  return x;
}

/// x * factor by a call of the library, for each x.
template <class Scalar>
auto scaled(const Eigen::Tensor<Scalar, 2, Eigen::RowMajor>& x, float factor) {
  Moments moments(1);
  moments.count = 1;
  moments.m2.setOnes();
  Eigen::Tensor<Scalar, 2, Eigen::RowMajor> y;
  normalize(x, moments, Vector<float>::Constant(1, factor), Vector<float>(), y, {.epsilon = 0});
  return y;
}

/// A product that underflows is -0 or 0, with a fused multiply-add or without; all else has one right answer.
template <class Scalar>
bool same(Scalar a, Scalar b) {
  const auto wide_a = static_cast<float>(a), wide_b = static_cast<float>(b);
  return std::isnan(wide_a) ? std::isnan(wide_b) : wide_a == wide_b;
}

template <class Scalar>
Index wrongly_scaled(const Eigen::Tensor<Scalar, 2, Eigen::RowMajor>& x, float factor) {
  const auto y = scaled(x, factor);
  Index wrong = 0;
  for (Index i = 0; i < x.size(); ++i) {
    if (!same(y(i, 0), static_cast<Scalar>(static_cast<float>(x(i, 0)) * factor))) ++wrong;
  }
  return wrong;
}

TYPED_TEST(SixteenBits, EveryValueIsReadExactlyAndRoundedToNearestEven) {
  const auto x = all_values<TypeParam>(1);
  for_each_target([&] {
    for (const float factor : {1.0f, 1 / 3.0f, 1.5f, 1.0009765625f, 1e-4f, 3e-8f, 1e4f, 1e30f}) {
      EXPECT_EQ(wrongly_scaled(x, factor), 0) << "times " << factor;
    }
  });
}

TYPED_TEST(SixteenBits, TensorsBeyondTheCaches) {
  const auto x = all_values<TypeParam>(70);  // 9 MB: asked for in advance
  for_each_target([&] { EXPECT_EQ(wrongly_scaled(x, 1 / 3.0f), 0); });
}

TYPED_TEST(SixteenBits, InPlace) {
  const auto p = random_problem<TypeParam>({{37, 5, 7}});
  for_each_target([&] {
    const auto expected = run_step(p);
    auto x = p.x;
    BatchNorm<TypeParam> layer = layer_of(p);
    auto map = tensor<3, Eigen::RowMajor>(x, p.layout);
    layer.forward(map, map);
    EXPECT_TRUE(same_bits(x, expected.y));
  });
}

TEST(Half, TheLargestValuesStayInRange) {
  constexpr float largest = 65504;
  Problem<Eigen::half> p{{{64, 3, 17}},         0, Flat<Eigen::half>(64 * 3 * 17), {}, Vector<float>::Ones(3),
                         Vector<float>::Zero(3)};
  for (Index i = 0; i < p.x.size(); ++i) p.x[i] = Eigen::half(i / 51 % 2 == 0 ? largest : -largest);
  p.dy = p.x;
  for_each_target([&] {
    const auto s = run_step(p);
    EXPECT_TRUE((s.mean.array() == 0).all());
    EXPECT_TRUE((s.var.array() == double(largest) * largest).all());
    for (Index i = 0; i < p.x.size(); ++i)
      ASSERT_EQ(static_cast<float>(s.y[i]), p.x[i] > Eigen::half(0) ? 1.0f : -1.0f);
  });
}

TYPED_TEST(SixteenBits, NaNAndInfinityStayInTheirChannel) {
  auto p = random_problem<TypeParam>({{40, 3, 5}});
  p.x[p.layout.dims[2] + 1] = std::numeric_limits<TypeParam>::quiet_NaN();     // channel 1
  p.x[2 * p.layout.dims[2] + 2] = std::numeric_limits<TypeParam>::infinity();  // channel 2
  for_each_target([&] {
    const auto s = run_step(p);
    for (Index i = 0; i < p.x.size(); ++i) {
      ASSERT_EQ(std::isfinite(static_cast<float>(s.y[i])), p.layout.channel_of(i) == 0);
    }
  });
}

}  // namespace
}  // namespace batchnorm::test
