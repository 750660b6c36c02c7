#include "step.hpp"

namespace batchnorm::test {

template Step<double> run_step(const Problem<double>&);

namespace {

TEST(Cases, EveryDoubleLayoutOnEveryTargetMatchesTheOracle) {
  for (const Layout& layout : cases()) expect_matches_oracle_on_every_target(random_problem<double>(layout));
}

}  // namespace
}  // namespace batchnorm::test
