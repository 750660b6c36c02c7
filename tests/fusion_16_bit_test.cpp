// Activations and residuals of 16-bit tensors.
#include "fused.hpp"

namespace batchnorm::test {
namespace {

TEST(Fusion16Bit, ReluMatchesTheOracle) {
  expect_fused_matches_oracle<Eigen::bfloat16>(Relu());
  expect_fused_matches_oracle<Eigen::half>(Relu());
}
TEST(Fusion16Bit, AnActivationKnownFromItsOutputMatchesTheOracle) {
  for (const Layout& layout : fused_layouts()) {
    expect_fused_matches_oracle<Eigen::half>(layout, OwnRelu(), Residual::added);
  }
}

/// An output of the cap has been rounded, below the cap for these.
TEST(Fusion16Bit, NoGradientBeyondACapThatRoundsDown) {
  const auto dz_of = []<class Scalar>(Scalar, double cap) {
    using Column = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;
    const Column x = Eigen::VectorXf::Random(40).cast<Scalar>(), z = Column::Constant(40, Scalar(5)),
                 dy = Column::Constant(40, Scalar(1));
    BatchNorm<Scalar, ClippedRelu> layer(1, {}, ClippedRelu(cap));
    Column y, dx, dz;
    layer.forward_add(x, z, y);
    layer.backward_add(x, dy, dx, dz);
    return Eigen::VectorXf(dz.template cast<float>());
  };
  EXPECT_EQ(dz_of(Eigen::half(), 0.1), Eigen::VectorXf::Zero(40));
  EXPECT_EQ(dz_of(Eigen::bfloat16(), 0.7), Eigen::VectorXf::Zero(40));
}

}  // namespace
}  // namespace batchnorm::test
