#include "train/progress.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Rate, IsTheMeanOfAShortRunWhateverItsFirstInterval) {
  Rate rate;
  EXPECT_EQ(rate.per_second(), 0);
  rate.add(1, 0.01);  // a slow start: 100 a second
  rate.add(999, 0.09);
  EXPECT_NEAR(rate.per_second(), 1000 / 0.1, 100);
}

TEST(Rate, ForgetsAnOldPaceAfterItsWindow) {
  Rate rate;
  for (int i = 0; i < 600; ++i) {
    rate.add(1, 0.1);
  }
  EXPECT_NEAR(rate.per_second(), 10, 1e-9);
  for (int i = 0; i < 600; ++i) {
    rate.add(5, 0.1);
  }
  EXPECT_NEAR(rate.per_second(), 50, 1);
}

TEST(ProgressMeter, CountsFromWhereAResumedRunBegan) {
  ProgressMeter meter("job", 90, 100);
  const Progress p = meter.update(95, 64, {}, 0);
  EXPECT_EQ(p.step, 95U);
  EXPECT_NEAR(p.eta_seconds * p.jets_per_second, 64, 1e-6) << "five steps done, five left";
  EXPECT_EQ(meter.update(100, 64, {}, 0).eta_seconds, 0);
}

}  // namespace
}  // namespace tessera
