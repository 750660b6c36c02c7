#include "step.hpp"

namespace batchnorm::test {

template Step<float> run_step(const Problem<float>&);

namespace {

TEST(Cases, EveryFloatLayoutOnEveryTargetMatchesTheOracle) {
  for (const Layout& layout : cases()) expect_matches_oracle_on_every_target(random_problem<float>(layout));
}

}  // namespace
}  // namespace batchnorm::test
