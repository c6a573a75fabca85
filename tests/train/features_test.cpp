#include "train/features.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "support/jet_files.h"

namespace tessera {
namespace {

constexpr double kPi = std::numbers::pi;

// One jet from (pt, eta, phi) of massless charged hadrons.
JetBlock jet_of(const std::vector<std::array<double, 3>>& particles) {
  JetBlock b = random_jets({static_cast<std::int64_t>(particles.size())});
  for (std::size_t i = 0; i < particles.size(); ++i) {
    const auto [pt, eta, phi] = particles[i];
    b.px[i] = static_cast<float>(pt * std::cos(phi));
    b.py[i] = static_cast<float>(pt * std::sin(phi));
    b.pz[i] = static_cast<float>(pt * std::sinh(eta));
    b.energy[i] = static_cast<float>(pt * std::cosh(eta));
  }
  return b;
}

FeatureRows rows_of(const JetBlock& b, const FeatureConfig& config = {}) {
  FeatureRows rows;
  for (std::uint64_t j = 0; j < b.jets(); ++j) {
    append_features(b, j, config, rows);
  }
  return rows;
}

TEST(Features, CoreFeaturesMatchTheFormulaAndInvertToTheParticle) {
  const JetBlock b = random_jets({5, 0, 1, 40});
  const FeatureRows rows = rows_of(b, {.max_delta = 4});
  EXPECT_EQ(rows.cu_seqlens, (std::vector<std::int32_t>{0, 5, 5, 6, 46}));
  EXPECT_EQ(rows.empty, 1U);
  for (const std::uint64_t jet : {0, 2, 3}) {
    double px = 0, py = 0, pz = 0;
    std::vector<std::array<double, 3>> want;
    for (auto i = static_cast<std::size_t>(b.offsets[jet]);
         i < static_cast<std::size_t>(b.offsets[jet + 1]); ++i) {
      px += b.px[i], py += b.py[i], pz += b.pz[i];
      want.push_back({b.px[i], b.py[i], b.pz[i]});
    }
    std::sort(want.begin(), want.end(), [](const auto& u, const auto& v) {
      return std::hypot(u[0], u[1]) > std::hypot(v[0], v[1]);
    });
    const double axis_eta = std::asinh(pz / std::hypot(px, py)), axis_phi = std::atan2(py, px);
    const float* core = &rows.core[3 * static_cast<std::size_t>(rows.cu_seqlens[jet])];
    for (std::size_t k = 0; k < want.size(); ++k, core += 3) {
      const double pt = std::hypot(want[k][0], want[k][1]);
      const double dphi = std::remainder(std::atan2(want[k][1], want[k][0]) - axis_phi, 2 * kPi);
      EXPECT_NEAR(core[0], std::log(pt) - 1.8, 1e-5);
      EXPECT_NEAR(core[1], 3 * (std::asinh(want[k][2] / pt) - axis_eta), 1e-5);
      EXPECT_NEAR(core[2], 3 * dphi, 1e-5);
      const PtDetaDphi back = inverse_core(core);
      EXPECT_NEAR(back.pt / pt, 1, 1e-6);
      EXPECT_NEAR(back.dphi, dphi, 1e-6);
    }
  }
}

TEST(Features, TheAxisComesFromAllConstituentsBeforeCutsAndTruncation) {
  // The far particle is cut, but it pulls the axis.
  const JetBlock b = jet_of({{10, 0, 0}, {10, 1.4, 0}, {5, 0.2, 0}});
  const FeatureRows rows = rows_of(b, {.max_constituents = 1});
  const double eta = jet_axis(b, 0).eta();
  EXPECT_GT(eta, 0.6);
  EXPECT_EQ(rows.cu_seqlens.back(), 1);
  EXPECT_GT(rows.truncated + rows.cut, 0U);
  EXPECT_NEAR(rows.core[1] / 3 + eta, std::abs(eta) < 0.8 ? 0.0 : 1.4, 1e-5);
}

TEST(Features, TheCutIsStrictAndZeroMomentaAreDropped) {
  JetBlock b = jet_of({{10, 0, 0}, {3, 0.5, 0}, {2, -0.5, 0.1}});
  b.px.push_back(0), b.py.push_back(0), b.pz.push_back(3), b.energy.push_back(3);
  b.pid.push_back(2), b.charge.push_back(0);
  b.d0.push_back(0), b.d0err.push_back(0), b.dz.push_back(0), b.dzerr.push_back(0);
  b.offsets.back() = 4;
  const FeatureRows all = rows_of(b, {.max_delta = 4});
  EXPECT_EQ(all.cu_seqlens.back(), 3);  // pt = 0 is gone
  const double pt = std::hypot(static_cast<double>(b.px[1]), static_cast<double>(b.py[1]));
  const double edge =
      std::abs(std::asinh(static_cast<double>(b.pz[1]) / pt) - jet_axis(b, 0).eta());
  EXPECT_EQ(rows_of(b, {.max_delta = std::nextafter(edge, 9.0)}).cu_seqlens.back() -
                rows_of(b, {.max_delta = edge}).cu_seqlens.back(),
            1);
}

// What the reader lets through, the transforms must not turn into NaN or infinity.
TEST(Features, ExtremeButFiniteMomentaGiveFiniteFeatures) {
  for (const float large : {3e38F, 1e20F, 1.0F}) {
    for (const float small : {1e-45F, 1e-38F, 0.0F}) {
      JetBlock b = random_jets({4});
      b.px = {large, small, -large, small};
      b.py = {small, large, small, small};
      b.pz = {large, -large, small, large};
      b.energy = {large, large, large, small};
      FeatureRows rows;
      append_features(b, 0, {.max_delta = 100, .particles = true}, rows);
      for (const auto* column : {&rows.core, &rows.context, &rows.particles}) {
        for (const float v : *column) {
          EXPECT_TRUE(std::isfinite(v)) << large << ' ' << small;
        }
      }
    }
  }
}

TEST(Features, PhiWrapsAtPi) {
  EXPECT_DOUBLE_EQ(wrap_phi(kPi), -kPi);
  EXPECT_DOUBLE_EQ(wrap_phi(-kPi), -kPi);
  EXPECT_NEAR(wrap_phi(2 * kPi - 0.1), -0.1, 1e-15);
  const FeatureRows rows = rows_of(jet_of({{10, 0, kPi - 0.01}, {9, 0, -kPi + 0.01}}));
  ASSERT_EQ(rows.cu_seqlens.back(), 2);
  EXPECT_NEAR(rows.core[2] - rows.core[5], -0.06, 1e-4);
}

TEST(Features, TruncationKeepsTheLeadingOnesInFallingPt) {
  const JetBlock b = random_jets({200});
  const FeatureRows rows = rows_of(b, {.max_constituents = 128});
  ASSERT_EQ(rows.cu_seqlens.back(), 128);
  const FeatureRows all = rows_of(b, {.max_constituents = 1000});
  for (std::size_t i = 0; i < 128; ++i) {
    EXPECT_EQ(rows.core[3 * i], all.core[3 * i]);
    EXPECT_TRUE(i == 0 || rows.core[3 * i] <= rows.core[3 * i - 3]);
  }
}

TEST(Features, UnmeasuredTracksBecomeZeroAreCountedAndTouchNoOtherValue) {
  JetBlock b = random_jets({6, 6});
  const FeatureRows before = rows_of(b);
  const auto nan = std::nanf("");
  for (std::size_t i = 0; i < 6; ++i) {
    b.d0[i] = b.d0err[i] = b.dz[i] = b.dzerr[i] = nan;
  }
  const FeatureRows after = rows_of(b);
  EXPECT_GE(after.unmeasured, 24U);
  const auto n = static_cast<std::size_t>(after.cu_seqlens[1]);
  for (std::size_t t = 0; t < after.pid.size(); ++t) {
    for (std::size_t f = 0; f < 9; ++f) {
      EXPECT_TRUE(std::isfinite(after.context[9 * t + f]));
      if (t < n && f >= 4) {
        EXPECT_EQ(after.context[9 * t + f], 0.0F);
      } else {
        EXPECT_EQ(after.context[9 * t + f], before.context[9 * t + f]);
      }
    }
  }
}

TEST(Features, ThirteenFeatureSetHoldsFlagsAndCharge) {
  const JetBlock b = random_jets({30});
  const FeatureRows rows = rows_of(b, {.max_delta = 4, .particles = true});
  ASSERT_EQ(rows.particles.size(), 30U * 13);
  ASSERT_EQ(rows.four_momenta.size(), 30U * 4);
  for (std::size_t t = 0; t < 30; ++t) {
    const float* p = &rows.particles[13 * t];
    EXPECT_NEAR(p[0] * 3, rows.core[3 * t + 1], 1e-5);
    EXPECT_NEAR(std::exp(p[2] / 0.7 + 1.7), std::exp(rows.core[3 * t] + 1.8), 1e-2);
    EXPECT_LE(p[8] + p[9] + p[10] + p[11] + p[12], 1.0F);
    EXPECT_EQ(std::abs(p[7]), p[8] + p[9] + p[11]);  // charged kinds only
  }
}

TEST(Features, PidClassesAndDecayModesFollowTheContract) {
  EXPECT_EQ(pid_class(1, 1), 0);
  EXPECT_EQ(pid_class(1, -1), 1);
  EXPECT_EQ(pid_class(2, 0), 2);
  EXPECT_EQ(pid_class(3, 0), 3);
  EXPECT_EQ(pid_class(4, 1), 4);
  EXPECT_EQ(pid_class(4, -1), 5);
  EXPECT_EQ(pid_class(5, 1), 6);
  EXPECT_EQ(pid_class(5, -1), 7);
  EXPECT_EQ(pid_class(0, 0), 8);
  const int want[] = {-1, 0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 3, 4, 4, 4, 4, 5, -1};
  for (int dm = -1; dm <= 16; ++dm) {
    EXPECT_EQ(tau_decay_class(dm), want[dm + 1]) << dm;
  }
}

TEST(Features, TheContractHashChangesWithEveryField) {
  const std::string base = contract_hash({});
  EXPECT_EQ(base, contract_hash({}));
  EXPECT_NE(base, contract_hash({.contract = "alpha3"}));
  EXPECT_NE(base, contract_hash({.max_constituents = 16}));
  EXPECT_NE(base, contract_hash({.max_delta = 0.4}));
  EXPECT_NE(base, contract_hash({.use_tracks = false}));
}

}  // namespace
}  // namespace tessera
