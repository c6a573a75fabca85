#include "core/vector_loops.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <vector>

namespace tessera {
namespace {

TEST(VectorLoops, AddRunEqualsThePlainLoopAtEveryLevelAndWritesNoFurther) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (const std::size_t n : {0, 1, 15, 16, 17, 31, 33, 257}) {
      std::vector<float> x(n), y(n + 1, -7.0F), expected(n + 1, -7.0F);
      for (std::size_t i = 0; i < n; ++i) {
        x[i] = 0.1F * static_cast<float>(i);
        expected[i] = y[i] + x[i];
      }
      add_run(x.data(), y.data(), static_cast<std::int64_t>(n));
      EXPECT_EQ(y, expected) << hwy::TargetName(target) << ", " << n;
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace
}  // namespace tessera
