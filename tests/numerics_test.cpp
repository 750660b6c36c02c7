// Numbers that break careless formulas.
#include <array>
#include <limits>

#include "step.hpp"

namespace batchnorm::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Many rows, long runs, short runs, and a tensor below one tile.
std::vector<Layout> layouts() {
  return {{{600, 17}, Order::row_major, 1},      {{600, 17}, Order::col_major, 1},
          {{4, 5, 20, 20}, Order::row_major, 1}, {{2, 3, 96, 96}, Order::row_major, 1},
          {{31, 16, 3, 3}, Order::row_major, 1}, {{64, 3, 12, 12}, Order::row_major, 1},
          {{5, 3}, Order::row_major, 1}};
}

template <class Scalar>
Flat<Scalar> normal_values(const Layout& layout, double mean, double std) {
  return Random(5).flat<Scalar>(layout.size(), mean, std);
}

/// A problem on each of the layouts, with x from `make_x(layout)`.
template <class Scalar, class MakeX>
std::vector<Problem<Scalar>> problems(const MakeX& make_x, double epsilon = 1e-5) {
  std::vector<Problem<Scalar>> all;
  for (const Layout& layout : layouts()) {
    all.push_back(random_problem<Scalar>(layout));
    all.back().x = make_x(layout);
    all.back().epsilon = epsilon;
  }
  return all;
}

template <class Scalar>
void expect_accurate(const std::vector<Problem<Scalar>>& problems, Real condition = 10) {
  for (const auto& p : problems) expect_matches_oracle_on_every_target(p, condition);
}

TEST(Numerics, MeanOneMillionStdOne) {
  const auto make_x = [](auto scalar) {
    return [](const Layout& layout) { return normal_values<decltype(scalar)>(layout, 1e6, 1); };
  };
  expect_accurate(problems<float>(make_x(float())), 1e7);
  expect_accurate(problems<double>(make_x(double())), 1e7);
}

TEST(Numerics, SquaresBeyondTheRangeOfFloat) {
  for (const double std : {1e19, 1e25, 1e33}) {
    SCOPED_TRACE(std);
    expect_accurate(problems<float>([&](const Layout& layout) { return normal_values<float>(layout, std, std); }));
  }
}

TEST(Numerics, SquaresBelowTheRangeOfFloat) {
  for (const double epsilon : {1e-5, 0.0}) {
    SCOPED_TRACE(epsilon);
    const auto make_x = [](const Layout& layout) { return normal_values<float>(layout, 1e-30, 1e-30); };
    expect_accurate(problems<float>(make_x, epsilon));
  }
}

TEST(Numerics, EveryChannelItsOwnMagnitude) {
  expect_accurate(problems<float>(
      [](const Layout& layout) {
        auto x = normal_values<float>(layout, 1, 1);
        for (Index i = 0; i < x.size(); ++i)
          x[i] *= std::pow(10.f, static_cast<float>(layout.channel_of(i) * 4 % 37) - 18);
        return x;
      },
      0));
}

TEST(Numerics, SortedValues) {
  for (const bool is_ascending : {true, false}) {
    expect_accurate(problems<float>([&](const Layout& layout) {
      auto x = normal_values<float>(layout, 3, 10);
      std::sort(x.begin(), x.end(), [&](float a, float b) { return is_ascending ? a < b : a > b; });
      return x;
    }));
  }
}

TEST(Numerics, OneOutlier) {
  for (const float outlier : {1e6f, 1e18f, 1e30f}) {
    SCOPED_TRACE(outlier);
    expect_accurate(problems<float>([&](const Layout& layout) {
      auto x = normal_values<float>(layout, 0, 1);
      x[x.size() / 2] = outlier;
      return x;
    }));
  }
}

TEST(Numerics, OneValueAmongZeros) {
  // The first value is always among the samples that give the center.
  for (const Layout& layout : {Layout{{256, 4, 14, 14}}, Layout{{6, 3, 64, 64}}, Layout{{4096, 20}}}) {
    auto p = random_problem<float>(layout);
    p.x.setZero();
    for (Index i = 0, channels = 0; channels < layout.channels(); ++i) {
      if (layout.channel_of(i) == channels) p.x[i] = 1.1f, ++channels;
    }
    expect_matches_oracle_on_every_target(p);
  }
}

TEST(Numerics, ProductsBelowTheRangeOfFloatWhoseFactorsAddUpToZero) {
  auto make_x = [](const Layout& layout) {
    Flat<float> x(layout.size());
    for (Index i = 0; i < x.size(); ++i) x[i] = i % 2 == 0 ? 1e-30f : -1e-30f;
    return x;
  };
  auto all = problems<float>(make_x, 0);
  for (auto& p : all) p.dy = p.x;
  expect_accurate(all);
}

TEST(Numerics, ChannelsWithoutGradient) {
  for (const Layout& layout : layouts()) {
    auto p = random_problem<float>(layout);
    for (Index i = 0; i < p.dy.size(); ++i)
      if (layout.channel_of(i) == 1) p.dy[i] = 0;
    expect_matches_oracle_on_every_target(p);
    for_each_target([&] { EXPECT_EQ(run_step(p).dgamma[1], 0); });
  }
}

TEST(Numerics, FirstRowsFarFromTheRest) {
  for (const float far : {1e4f, 1e8f}) {
    SCOPED_TRACE(far);
    expect_accurate(problems<float>([&](const Layout& layout) {
      auto x = normal_values<float>(layout, 0, 1);
      x.head(x.size() / 4) += far;
      return x;
    }));
  }
}

TEST(Numerics, SomeRowsFarFromTheRestAtRegularDistances) {
  for (const Index period : {2, 8, 32, 64, 256}) {
    SCOPED_TRACE(period);
    expect_accurate(problems<float>([&](const Layout& layout) {
      auto x = normal_values<float>(layout, 0, 1);
      const Index row = layout.rank() == 2 && layout.order == Order::row_major ? layout.channels() : 1;
      for (Index i = 0; i < x.size(); ++i)
        if (i / row % period == 0) x[i] += 1e4f;
      return x;
    }));
  }
}

TEST(Numerics, OneChannelFarFromTheRest) {
  const auto make_x = [](const Layout& layout) {
    auto x = normal_values<float>(layout, 0, 1);
    for (Index i = 0; i < x.size(); ++i)
      if (layout.channel_of(i) == 1) x[i] += 1e6f;
    return x;
  };
  expect_accurate(problems<float>(make_x), 1e7);
}

/// Makes every other channel constant, `first` of the constants in the first one, the next in the next.
template <class Scalar>
void expect_constant_channels_give_beta(const Layout& layout, std::size_t first) {
  using Limits = std::numeric_limits<Scalar>;
  const std::array constants = {Scalar(10.1),  Scalar(1000.1),  Scalar(-1e-7),        Scalar(1e30),
                                Scalar(0),     Scalar(1) / 3,   Limits::denorm_min(), Limits::min() * Scalar(0.7),
                                Limits::max(), Limits::lowest()};
  Problem<Scalar> p = random_problem<Scalar>(layout);
  for (Index i = 0; i < p.x.size(); ++i) {
    const auto c = static_cast<std::size_t>(layout.channel_of(i));
    if (c % 2 == 0) p.x[i] = constants[(first + c / 2) % constants.size()];
  }
  for_each_target([&] {
    const Step<Scalar> s = run_step(p);
    for (Index i = 0; i < p.x.size(); ++i) {
      const Index c = layout.channel_of(i);
      if (c % 2 == 0) {
        ASSERT_EQ(s.y[i], p.beta[c]) << "where x is " << p.x[i];
      }
    }
    for (Index c = 0; c < layout.channels(); c += 2) ASSERT_EQ(s.var[c], 0) << "channel " << c;
  });
}

TEST(Numerics, ConstantChannelsGiveBetaBitForBit) {
  std::size_t first = 0;
  for (const Layout& layout : cases()) {
    if (layout.rank() != 3 || layout.order != Order::row_major) continue;  // every kind of memory once
    SCOPED_TRACE(text(layout));
    for (int repetition = 0; repetition < 3; ++repetition, ++first) {
      expect_constant_channels_give_beta<float>(layout, first);
      expect_constant_channels_give_beta<double>(layout, first);
    }
  }
}

TEST(Numerics, VarianceIsNeverNegative) {
  // Two neighbouring numbers: the smallest spread there is.
  for (const float magnitude : {1e-38f, 0.1f, 1e6f, 3e38f}) {
    for (const Layout& layout : layouts()) {
      auto p = random_problem<float>(layout);
      for (float& x : p.x) x = x > 0 ? magnitude : std::nextafter(magnitude, 0.f);
      for_each_target([&] {
        const auto s = run_step(p);
        EXPECT_GE(s.var.minCoeff(), 0) << text(layout) << " at " << magnitude;
        EXPECT_GT(s.running_var.minCoeff(), 0) << text(layout) << " at " << magnitude;
        EXPECT_TRUE(s.y.isFinite().all()) << text(layout) << " at " << magnitude;
      });
    }
  }
}

TEST(Numerics, NanAndInfinityStayInTheirChannel) {
  for (const float poison : {nan, infinity, -infinity}) {
    for (const Layout& layout : layouts()) {
      SCOPED_TRACE(testing::Message() << poison << ", " << text(layout));
      const auto clean = random_problem<float>(layout);
      for (const Index position : {Index(0), clean.x.size() / 2 + 1, clean.x.size() - 1}) {
        auto poisoned = clean;
        poisoned.x[position] = poison;
        for_each_target([&] {
          const auto expected = run_step(clean), s = run_step(poisoned);
          for (Index i = 0; i < clean.x.size(); ++i) {
            if (layout.channel_of(i) == layout.channel_of(position)) {
              ASSERT_TRUE(std::isnan(s.y[i])) << "at " << i;
              ASSERT_TRUE(std::isnan(s.dx[i])) << "at " << i;
            } else {
              ASSERT_EQ(s.y[i], expected.y[i]) << "at " << i;
              ASSERT_EQ(s.dx[i], expected.dx[i]) << "at " << i;
              ASSERT_EQ(s.eval_y[i], expected.eval_y[i]) << "at " << i;
            }
          }
          for (Index c = 0; c < layout.channels(); ++c) {
            if (c == layout.channel_of(position)) {
              EXPECT_TRUE(std::isnan(s.var[c]) && std::isnan(s.running_var[c])) << "channel " << c;
            } else {
              EXPECT_EQ(s.running_mean[c], expected.running_mean[c]) << "channel " << c;
              EXPECT_EQ(s.running_var[c], expected.running_var[c]) << "channel " << c;
              EXPECT_EQ(s.dgamma[c], expected.dgamma[c]) << "channel " << c;
            }
          }
        });
      }
    }
  }
}

}  // namespace
}  // namespace batchnorm::test
