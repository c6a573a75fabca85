// Schedules and metrics against PyTorch and numpy.
#include "support/golden.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "train/metrics.h"
#include "train/schedule.h"

namespace tessera::test {
namespace {

nlohmann::json schedules() {
  std::ifstream in(std::string(TESSERA_SOURCE_DIR) + "/tests/golden/schedules.json");
  return nlohmann::json::parse(in);
}

TEST(Golden, OneCycleCooldownEpochs) {
  const auto golden = schedules().at("one_cycle_cooldown");
  const ScheduleConfig config{.kind = "one_cycle_cooldown", .lr = 1e-3, .steps_per_epoch = 7};
  for (std::size_t i = 0; i < golden.at("epoch").size(); ++i) {
    const std::uint64_t epoch = golden.at("epoch")[i];
    EXPECT_NEAR(learning_rate(config, 7 * epoch), golden.at("lr")[i].get<double>(), 1e-12) << epoch;
    EXPECT_NEAR(learning_rate(config, 7 * epoch + 6), golden.at("lr")[i].get<double>(), 1e-12)
        << epoch;
  }
}

TEST(Golden, ConstantScheduleStartsWithAThird) {
  const auto golden = schedules().at("constant_lr").at("lr");
  const ScheduleConfig config{.kind = "constant", .lr = 1e-3, .steps_per_epoch = 5};
  for (std::uint64_t epoch = 0; epoch < golden.size(); ++epoch) {
    EXPECT_NEAR(learning_rate(config, 5 * epoch), golden[epoch].get<double>(), 1e-12) << epoch;
  }
}

TEST(Golden, CosineEndsAtOnePercent) {
  const auto golden = schedules().at("cosine").at("lr");
  const ScheduleConfig config{.kind = "cosine", .lr = 1e-3, .total_steps = 100};
  for (std::uint64_t step = 0; step < golden.size(); ++step) {
    EXPECT_NEAR(learning_rate(config, step), golden[step].get<double>(), 1e-12) << step;
  }
}

TEST(Golden, ResponseAndResolution) {
  const GoldenFile file("metrics");
  const auto& ratio = file.at("in/ratio").values;
  const Resolution r = resolution(ratio, std::vector<double>(ratio.size(), 1.0));
  EXPECT_NEAR(r.response, file.scalar("out/response.f64"), 1e-12);
  EXPECT_NEAR(r.iqr_over_median, file.scalar("out/resolution.f64"), 1e-12);
  EXPECT_NEAR(r.sigma_68, file.scalar("out/resolution_68.f64"), 1e-12);
}

TEST(Golden, AreaUnderTheCurveWithTies) {
  const GoldenFile file("metrics");
  EXPECT_NEAR(auc(file.at("in/signal").values, file.at("in/background").values),
              file.scalar("out/auc.f64"), 1e-12);
}

TEST(Golden, WassersteinDistance) {
  const GoldenFile file("metrics");
  EXPECT_NEAR(w1(file.at("in/truth").values, file.at("in/generated").values),
              file.scalar("out/w1.f64"), 1e-9);
}

}  // namespace
}  // namespace tessera::test
