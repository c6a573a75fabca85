// Preprocessing, schedules and metrics against PyTorch and numpy.
#include "support/golden.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "train/features.h"
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

TEST(Golden, RejectionAtThirtyAndFiftyPercentWithTies) {
  const GoldenFile file("metrics");
  const auto& signal = file.at("in/signal").values;
  const auto& background = file.at("in/background").values;
  for (const auto& [efficiency, name] : {std::pair{0.3, "30"}, {0.5, "50"}}) {
    const Rejection r = rejection_at(signal, background, efficiency);
    const std::string key = std::string("out/rejection_") + name;
    EXPECT_NEAR(r.rejection, file.scalar(key + ".f64"), 1e-6 * r.rejection) << name;
    EXPECT_NEAR(r.error, file.scalar(key + "_error.f64"), 1e-6 * r.rejection) << name;
    EXPECT_GT(r.tied, 0) << "the sample holds no tie at the cut";
  }
}

TEST(Golden, DivergencesInBothDefinitions) {
  const GoldenFile file("metrics");
  const auto& truth = file.at("in/truth").values;
  const auto& generated = file.at("in/generated").values;
  EXPECT_NEAR(kld(truth, generated), file.scalar("out/kl.f64"), 1e-6);
  EXPECT_NEAR(kld_omnijet(truth, generated), file.scalar("out/kl_reference.f64"), 1e-6);
}

/// The jets of the file: four-momenta only.
JetBlock golden_jets(const GoldenFile& file) {
  JetBlock block;
  for (const std::int32_t offset : file.ints("in/cu_seqlens")) {
    block.offsets.push_back(offset);
  }
  const auto p4 = file.floats("in/p4");
  for (std::size_t i = 0; i < p4.size(); i += 4) {
    block.px.push_back(p4[i]);
    block.py.push_back(p4[i + 1]);
    block.pz.push_back(p4[i + 2]);
    block.energy.push_back(p4[i + 3]);
  }
  return block;
}

TEST(Golden, AxisIsThatOfAllConstituentsBeforeTheCuts) {
  const GoldenFile file("preprocess");
  const JetBlock block = golden_jets(file);
  const auto& expected = file.at("out/axis.f64").values;
  for (std::uint64_t j = 0; j < block.jets(); ++j) {
    const Axis axis = jet_axis(block, j);
    EXPECT_NEAR(axis.eta(), expected[2 * j], 1e-12) << "jet " << j;
    EXPECT_NEAR(axis.phi(), expected[2 * j + 1], 1e-12) << "jet " << j;
  }
}

// Jets of 0, 1, 40, 160 and 5 particles: one across phi = pi, one longer than 128, one that the
// cut empties but for a particle at most.
TEST(Golden, FeaturesOfTheParticlesThatSurvive) {
  const GoldenFile file("preprocess");
  const JetBlock block = golden_jets(file);
  FeatureRows rows;
  for (std::uint64_t j = 0; j < block.jets(); ++j) {
    append_features(block, j, {.contract = "alpha3"}, rows);
  }
  EXPECT_EQ(rows.cu_seqlens, file.ints("out/cu_seqlens"));
  const auto& expected = file.at("out/features").values;
  ASSERT_EQ(rows.core.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(rows.core[i], expected[i], 1e-6 * std::max(1.0, std::abs(expected[i]))) << i;
  }
}

TEST(Golden, InverseTransformReturnsTheKeptParticles) {
  const GoldenFile file("preprocess");
  const JetBlock block = golden_jets(file);
  const auto kept = file.ints("out/kept"), ends = file.ints("out/cu_seqlens");
  const auto features = file.floats("out/features");
  std::size_t row = 0;
  for (std::uint64_t j = 0; j < block.jets(); ++j) {
    const Axis axis = jet_axis(block, j);
    for (; row < static_cast<std::size_t>(ends[j + 1]); ++row) {
      const auto i = static_cast<std::size_t>(block.offsets[j] + kept[row]);
      const double px = block.px[i], py = block.py[i], pt = std::hypot(px, py);
      const PtDetaDphi p = inverse_core(&features[3 * row]);
      EXPECT_NEAR(p.pt, pt, 1e-6 * pt);
      EXPECT_NEAR(p.deta + axis.eta(), std::asinh(block.pz[i] / pt), 1e-6);
      EXPECT_NEAR(wrap_phi(p.dphi + axis.phi() - std::atan2(py, px)), 0, 1e-6);
    }
  }
}

}  // namespace
}  // namespace tessera::test
