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

TEST(ProgressMeter, RatesAndTheRestOfAResumedRunAreConsistent) {
  ProgressMeter meter("toy", 10, 30);
  Progress p;
  for (std::uint64_t s = 11; s <= 20; ++s) {
    p = meter.update(s, 64, {}, 0);
    EXPECT_GT(p.jets_per_second, 0);
  }
  EXPECT_NEAR(p.eta_seconds * p.jets_per_second / 64, 10, 1e-6);
  EXPECT_EQ(meter.update(30, 64, {}, 0).eta_seconds, 0);
}

}  // namespace
}  // namespace tessera
