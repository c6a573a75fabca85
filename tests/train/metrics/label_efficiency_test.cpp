#include "train/metrics/label_efficiency.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace tessera {
namespace {

using Bound = LabelMultiplier::Bound;
const LearningCurve kAccuracy{{100, 1000, 10000}, {0.2, 0.4, 0.5}};

TEST(LabelEfficiency, InterpolatesLinearlyInTheLogarithmOfN) {
  const auto m = label_multiplier(kAccuracy, 100, 0.3, Better::larger);
  EXPECT_NEAR(m.multiplier, std::sqrt(10.0), 1e-12);  // half way between 100 and 1000
  EXPECT_EQ(m.bound, Bound::none);
  EXPECT_NEAR(label_multiplier(kAccuracy, 1000, 0.4, Better::larger).multiplier, 1, 1e-12);
}

TEST(LabelEfficiency, SmallerMayBeBetter) {
  const LearningCurve resolution{{100, 1000}, {0.3, 0.1}};
  EXPECT_NEAR(label_multiplier(resolution, 100, 0.2, Better::smaller).multiplier, std::sqrt(10.0),
              1e-12);
}

TEST(LabelEfficiency, CurvesThatNeverMeetGiveLimits) {
  const auto high = label_multiplier(kAccuracy, 100, 0.6, Better::larger);
  EXPECT_EQ(high.bound, Bound::at_least);
  EXPECT_NEAR(high.multiplier, 100, 1e-12);
  const auto low = label_multiplier(kAccuracy, 1000, 0.1, Better::larger);
  EXPECT_EQ(low.bound, Bound::at_most);
  EXPECT_NEAR(low.multiplier, 0.1, 1e-12);
}

TEST(LabelEfficiency, TakesTheFirstCrossingOfACurveThatTurnsBack) {
  const LearningCurve bumpy{{1, 10, 100, 1000}, {0.0, 1.0, 0.0, 2.0}};
  EXPECT_NEAR(label_multiplier(bumpy, 1, 1.0, Better::larger).multiplier, 10, 1e-9);
}

TEST(LabelEfficiency, RefusesAnEmptyCurve) {
  EXPECT_THROW(label_multiplier({}, 100, 0.5, Better::larger), Error);
}

}  // namespace
}  // namespace tessera
