/// The shared table of tensor layouts, and random numbers to fill them.
#pragma once

#include <Eigen/Core>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "oracle.hpp"

namespace batchnorm::test {

using Eigen::Index;
using oracle::Layout;
using oracle::Order;

template <class Scalar>
using Flat = Eigen::Array<Scalar, Eigen::Dynamic, 1>;
template <class Scalar>
using Vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;

inline std::string text(const Layout& layout) {
  std::string dims;
  for (Index d : layout.dims) dims += (dims.empty() ? "" : "x") + std::to_string(d);
  return dims + (layout.order == Order::row_major ? " row major" : " column major") + ", axis " +
         std::to_string(layout.axis);
}

/// Every way to lay out the same memory: `outer` groups of `channels` runs of `inner` values.
inline std::vector<Layout> layouts_of(Index outer, Index channels, Index inner) {
  std::vector<Layout> all = {{{outer, channels, inner}, Order::row_major, 1},
                             {{inner, channels, outer}, Order::col_major, -2}};
  if (inner == 1) {
    all.push_back({{outer, channels}, Order::row_major, -1});
    all.push_back({{channels, outer}, Order::col_major, 0});
  }
  if (outer == 1) {
    all.push_back({{channels, inner}, Order::row_major, 0});
    all.push_back({{inner, channels}, Order::col_major, 1});
  }
  return all;
}

/// Every axis, counted from both ends, in both orders.
inline std::vector<Layout> every_axis_of(const std::vector<Index>& dims) {
  std::vector<Layout> all;
  const int rank = static_cast<int>(dims.size());
  for (const Order order : {Order::row_major, Order::col_major})
    for (int axis = -rank; axis < rank; ++axis) all.push_back({dims, order, axis});
  return all;
}

/// The same memory with all axes on either side of the channels as one.
inline Layout as_rank_3(const Layout& layout) {
  Index before = 1, after = 1;
  for (int d = 0; d < layout.rank(); ++d) {
    if (d != layout.channel_axis()) (d < layout.channel_axis() ? before : after) *= layout.dim(d);
  }
  return {{before, layout.channels(), after}, layout.order, 1};
}

/// Sizes around one value, a vector of 4, 8 or 16 lanes, a tile of 8 rows, four tiles, 256 rows and a block of 2048, on
/// every kind of layout. Empty tensors and single values per channel are not among them: they have no variance to
/// compare.
inline const std::vector<Layout>& cases() {
  static const std::vector<Layout> table = [] {
    std::vector<Layout> all;
    const auto add = [&](const std::vector<Layout>& more) { all.insert(all.end(), more.begin(), more.end()); };
    for (Index channels : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64})
      for (Index rows : {2, 7, 8, 9, 31}) add(layouts_of(rows, channels, 1));
    for (Index channels : {1, 3, 16, 17, 64})
      for (Index rows : {255, 256, 257, 600}) add(layouts_of(rows, channels, 1));
    for (Index rows : {63, 64, 500}) add(layouts_of(rows, 100, 1));  // 4 rows are whole vectors
    for (Index channels : {1, 2, 3, 15, 16, 17, 33})
      for (Index inner : {2, 9, 15, 16, 17, 49}) {
        add(layouts_of(1, channels, inner));
        add(layouts_of(3, channels, inner));
      }
    for (Index inner : {196, 5000}) {
      add(layouts_of(1, 5, inner));
      add(layouts_of(9, 2, inner));
    }
    add(layouts_of(16, 5, 128));
    add(layouts_of(17, 3, 255));
    add(layouts_of(20, 9, 196));
    add(layouts_of(5000, 5, 1));
    add(layouts_of(2049, 64, 1));
    add(layouts_of(300, 17, 9));
    add(layouts_of(70, 3, 49));
    add(every_axis_of({3, 17}));
    add(every_axis_of({2, 3, 4, 5}));
    add(every_axis_of({3, 2, 4, 2, 3}));
    add({{{8, 16, 7, 7}, Order::row_major, 1}, {{8, 7, 7, 16}, Order::row_major, -1}});
    add({{{16, 7, 7, 8}, Order::col_major, 0}, {{7, 7, 16, 8}, Order::col_major, 2}});
    return all;
  }();
  return table;
}

/// Parameters of 16-bit tensors are float.
template <class Scalar>
using Parameter = std::conditional_t<sizeof(Scalar) == 2, float, Scalar>;

/// A tensor, an output gradient and the parameters of a layer.
template <class Scalar>
struct Problem {
  Layout layout;
  double epsilon = 1e-5;
  Flat<Scalar> x, dy;
  Vector<Parameter<Scalar>> gamma, beta;
};

/// Normal numbers, deterministic from the seed.
class Random {
 public:
  explicit Random(unsigned seed = 1) : generator_(seed) {}

  double normal() { return normal_(generator_); }

  template <class Scalar>
  Flat<Scalar> flat(Index size, double mean = 0, double std = 1) {
    return Flat<Scalar>::NullaryExpr(size, [&] { return static_cast<Scalar>(mean + std * normal()); });
  }

  template <class Scalar>
  Vector<Scalar> vector(Index size, double mean = 0, double std = 1) {
    return flat<Scalar>(size, mean, std).matrix();
  }

 private:
  std::mt19937_64 generator_;
  std::normal_distribution<double> normal_;
};

/// x has another mean and spread in each channel: no channel can stand for its neighbour.
template <class Scalar>
Problem<Scalar> random_problem(const Layout& layout, unsigned seed = 1) {
  Random random(seed);
  const Index size = layout.size(), channels = layout.channels();
  Problem<Scalar> p{layout, 1e-5, random.flat<Scalar>(size), random.flat<Scalar>(size), {}, {}};
  p.gamma = random.vector<Parameter<Scalar>>(channels, 1, 0.5);
  p.beta = random.vector<Parameter<Scalar>>(channels);
  const Vector<Scalar> mean = random.vector<Scalar>(channels), std = random.vector<Scalar>(channels).cwiseAbs();
  for (Index i = 0; i < size; ++i) {
    const Index c = layout.channel_of(i);
    p.x[i] = mean[c] + (std[c] + Scalar(0.5)) * p.x[i];
  }
  return p;
}

}  // namespace batchnorm::test
