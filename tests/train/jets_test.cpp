// FastJet behind our header, soft drop and N-subjettiness, on the event files of Debian's
// fastjet-examples.
#include "train/jets.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "train/substructure.h"

namespace tessera {
namespace {

const std::filesystem::path kExamples = "/usr/share/doc/fastjet-examples/examples";

// Lines "px py pz E"; '#' begins a comment.
std::vector<FourVector> read_event(const std::string& name) {
  std::ifstream in(kExamples / name);
  std::vector<FourVector> event;
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    FourVector p;
    if (fields >> p.px >> p.py >> p.pz >> p.e) {
      event.push_back(p);
    }
  }
  return event;
}

std::vector<FourVector> members(const std::vector<FourVector>& event, const ClusteredJet& jet) {
  std::vector<FourVector> out;
  for (const int i : jet.constituents) {
    out.push_back(event[static_cast<std::size_t>(i)]);
  }
  return out;
}

struct Golden {
  const char* file;
  std::size_t particles, jets, index;
  double pt, y, m;
  std::size_t n;
  double softdrop, kt12;
};

TEST(Jets, AntiktSoftDropAndKtSplittingGiveTheGoldenValues) {
  if (!std::filesystem::exists(kExamples)) {
    GTEST_SKIP() << "fastjet-examples is not installed";
  }
  const Golden rows[] = {
      {"single-event.dat", 354, 6, 0, 983.279619, -.867140, 36.456622, 34, 8.704838, 5.276902},
      {"single-event.dat", 354, 6, 1, 905.879295, .221150, 74.581923, 42, 4.038105, 5.938666},
      {"boosted_top_event.dat", 184, 5, 0, 874.141119, .446407, 181.620283, 35, 175.660324,
       163.201647},
      {"boosted_top_event.dat", 184, 5, 1, 819.516783, .411350, 198.454334, 59, 198.454334,
       73.061572},
      {"HZ-event-Hmass115.dat", 777, 24, 0, 390.722975, .997417, 148.227096, 58, 135.224703,
       128.118084},
  };
  for (const Golden& g : rows) {
    const auto event = read_event(g.file);
    ASSERT_EQ(event.size(), g.particles);
    const auto jets = cluster_antikt(event, 0.8, 5);
    ASSERT_EQ(jets.size(), g.jets);
    const ClusteredJet& jet = jets[g.index];
    const auto p = members(event, jet);
    EXPECT_NEAR(jet.p4.pt(), g.pt, 1e-5);
    EXPECT_NEAR(jet.p4.rapidity(), g.y, 1e-5);
    EXPECT_NEAR(jet.p4.m(), g.m, 1e-4);
    EXPECT_EQ(p.size(), g.n);
    EXPECT_NEAR(soft_drop(p).m(), g.softdrop, 1e-4) << g.file;
    EXPECT_NEAR(kt_splitting_scale(p, 0.8), g.kt12, 1e-4) << g.file;
  }
}

TEST(Jets, EeGenktGivesTheGoldenValues) {
  if (!std::filesystem::exists(kExamples)) {
    GTEST_SKIP() << "fastjet-examples is not installed";
  }
  const auto event = read_event("single-ee-event.dat");
  ASSERT_EQ(event.size(), 70U);
  const auto jets = cluster_ee_genkt(event, 0.4, -1, 0.5);
  ASSERT_EQ(jets.size(), 16U);
  EXPECT_EQ(cluster_ee_genkt(event, 0.4, -1, 0).size(), 25U);
  EXPECT_NEAR(jets[0].p4.pt(), 15.600379, 1e-5);
  EXPECT_NEAR(jets[0].p4.m(), 5.501625, 1e-4);
  EXPECT_EQ(jets[0].constituents.size(), 13U);
}

TEST(Jets, NothingInGivesNothingOut) {
  EXPECT_TRUE(cluster_antikt({}, 0.8, 0).empty());
  EXPECT_EQ(cluster_cambridge({}).root, -1);
  EXPECT_TRUE(kt_wta_axes({}, 3, 0.8).empty());
  EXPECT_EQ(soft_drop({}), FourVector{});
  EXPECT_EQ(n_subjettiness({}, 1), 0);
}

TEST(Substructure, OneParticleIsItsOwnGroomedJet) {
  const FourVector p = from_pt_eta_phi_m(10, 0.3, 1, 0.1);
  EXPECT_EQ(soft_drop({{p}}), p);
  EXPECT_EQ(n_subjettiness({{p}}, 1), 0);
}

TEST(Substructure, SoftDropKeepsAHardPairAndDropsASoftBranch) {
  const FourVector a = from_pt_eta_phi_m(100, 0, 0, 0), b = from_pt_eta_phi_m(20, 0, 0.4, 0);
  const FourVector soft = from_pt_eta_phi_m(1, 0.7, 0.2, 0);
  FourVector pair = a;
  pair += b;
  EXPECT_NEAR(soft_drop({{a, b, soft}}).m(), pair.m(), 1e-9);
  EXPECT_NEAR(soft_drop({{a, soft}}).pt(), 100, 1e-9);
}

TEST(Substructure, NSubjettinessOfTwoProngsMatchesTheClosedForm) {
  // winner takes all: the axis of one jet is the harder particle, so tau1 = z2 dR / R0, tau2 = 0
  const FourVector a = from_pt_eta_phi_m(60, 0.1, 0, 0), b = from_pt_eta_phi_m(40, 0.1, 0.4, 0);
  EXPECT_NEAR(n_subjettiness({{a, b}}, 1), 0.4 * 0.4 / 0.8, 1e-9);
  EXPECT_EQ(n_subjettiness({{a, b}}, 2), 0);
}

TEST(FourVector, RapidityIsFiniteWhereverPzIs) {
  const FourVector below{.px = 0, .py = 0, .pz = 3, .e = 5};
  EXPECT_DOUBLE_EQ(below.rapidity(), 0.5 * std::log(4.0));
  EXPECT_FALSE(below.floored());
  const double most = 0.5 * std::log(1e12);
  for (const auto& [pz, e] : {std::pair{5.0, 5.0},
                              {5.0, 4.0},
                              {-5.0, 5.0},
                              {-5.0, 0.0},
                              {1e30, 1.0},
                              {std::nextafter(5.0, 6.0), 5.0},
                              {5.0, std::nextafter(5.0, 6.0)}}) {
    const FourVector p{.px = 1, .py = 0, .pz = pz, .e = e};
    EXPECT_NEAR(p.rapidity(), std::copysign(most, pz), 1e-6) << pz << " " << e;
    EXPECT_TRUE(p.floored());
    EXPECT_TRUE(std::isfinite(p.m()) && std::isfinite(p.eta()) && std::isfinite(p.phi()));
  }
  EXPECT_EQ(FourVector{}.rapidity(), 0);
  EXPECT_TRUE(std::isfinite(FourVector{}.eta()));
}

TEST(Substructure, IsFiniteWithCandidatesOnTheLightCone) {
  std::vector<FourVector> jet;
  for (int i = 0; i < 12; ++i) {
    jet.push_back(from_pt_eta_phi_m(20.0 - i, 0.05 * i, 0.3 * std::sin(i), 0));
  }
  jet.push_back({.px = 1, .py = 0, .pz = 7, .e = 7});
  jet.push_back({.px = 1, .py = 1, .pz = -7, .e = 6});
  jet.push_back({.px = 0, .py = 0, .pz = 4, .e = 4});
  jet.push_back({.px = 0, .py = 0, .pz = 0, .e = 0});
  for (int n = 1; n <= 4; ++n) {
    EXPECT_TRUE(std::isfinite(n_subjettiness(jet, n))) << n;
  }
  const FourVector groomed = soft_drop(jet);
  EXPECT_TRUE(std::isfinite(groomed.m()) && std::isfinite(groomed.pt()));
}

}  // namespace
}  // namespace tessera
