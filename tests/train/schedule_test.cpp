#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"

namespace tessera {
namespace {

TEST(Schedule, OneCycleCooldownGivesThePublishedRates) {
  const ScheduleConfig c{.kind = "one_cycle_cooldown", .lr = 1e-3, .steps_per_epoch = 10};
  const std::pair<std::uint64_t, double> want[] = {{0, 5},  {2, 7.5}, {4, 10}, {14, 7.5},
                                                   {24, 5}, {49, 4},  {74, 3}, {75, 3}};
  for (const auto& [epoch, rate] : want) {
    EXPECT_NEAR(learning_rate(c, epoch * 10), rate * 1e-4, 1e-12) << epoch;
    EXPECT_EQ(learning_rate(c, epoch * 10), learning_rate(c, epoch * 10 + 9));  // per epoch
  }
}

TEST(Schedule, ConstantStartsAtAThirdForOneEpoch) {
  const ScheduleConfig c{.kind = "constant", .lr = 3e-3, .steps_per_epoch = 7};
  EXPECT_DOUBLE_EQ(learning_rate(c, 0), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(c, 6), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(c, 7), 3e-3);
}

TEST(Schedule, CosineWarmsUpPeaksAndEndsAtOnePercent) {
  const ScheduleConfig c{.lr = 2e-3, .total_steps = 1100, .warmup_steps = 100};
  EXPECT_DOUBLE_EQ(learning_rate(c, 0), 2e-5);
  EXPECT_DOUBLE_EQ(learning_rate(c, 99), 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(c, 100), 2e-3);
  EXPECT_NEAR(learning_rate(c, 600), (2e-3 + 2e-5) / 2, 1e-15);
  EXPECT_NEAR(learning_rate(c, 1100), 2e-5, 1e-18);
  EXPECT_NEAR(learning_rate(c, 5000), 2e-5, 1e-18);
  for (std::uint64_t s = 100; s < 1100; ++s) {
    EXPECT_GE(learning_rate(c, s), learning_rate(c, s + 1));
  }
  EXPECT_NEAR(learning_rate({.lr = 1, .total_steps = 10, .final_lr = 0.5}, 10), 0.5, 1e-15);
}

TEST(Schedule, AnUnknownKindIsRefused) {
  EXPECT_THROW(learning_rate({.kind = "linear"}, 0), Error);
}

}  // namespace
}  // namespace tessera
