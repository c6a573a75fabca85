#include "train/simulation/detector.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace tessera {
namespace {

Particle gun(int pid, double pt, double eta, double phi, double m = 0) {
  Particle p;
  p.pid = pid;
  p.status = 1;
  p.m = m;
  p.p4 = from_pt_eta_phi_m(pt, eta, phi, m);
  return p;
}

constexpr double kPion = 0.13957;

// The reference: the equation of motion dp/ds = 0.3 q p x B, integrated in small midpoint steps.
struct Reference {
  double x, y, z, d0, dz;
};
Reference integrate(const Particle& p, int charge, double radius, double half_length, double bz) {
  const double pt = p.p4.pt(), step = 0.01;  // mm of transverse path
  const double turn = 0.299792458e-3 * charge * bz / pt * step;
  const auto walk = [&](double direction, auto stop) {
    double x = p.vx, y = p.vy, z = p.vz, phi = p.p4.phi();
    while (!stop(x, y, z, phi)) {
      const double middle = phi - direction * turn / 2;
      x += direction * step * std::cos(middle);
      y += direction * step * std::sin(middle);
      z += direction * step * p.p4.pz / pt;
      phi -= direction * turn;
    }
    return std::array{x, y, z, phi};
  };
  const auto out = walk(1, [&](double x, double y, double z, double) {
    return std::hypot(x, y) >= radius || std::abs(z) >= half_length;
  });
  // closest approach: the position turns perpendicular to the direction
  const auto dot = [](double x, double y, double phi) {
    return x * std::cos(phi) + y * std::sin(phi);
  };
  const double sign = dot(p.vx, p.vy, p.p4.phi()) > 0 ? -1 : 1;
  const auto near = walk(
      sign, [&](double x, double y, double, double phi) { return sign * dot(x, y, phi) >= 0; });
  return {out[0], out[1], out[2], near[0] * std::sin(near[3]) - near[1] * std::cos(near[3]),
          near[2]};
}

TEST(Detector, HelicesMatchTheIntegratedEquationOfMotion) {
  for (const int charge : {1, -1}) {
    for (const double pt : {0.2, 0.35, 1.0, 20.0}) {  // the first two turn back before the barrel
      for (const double eta : {-1.9, 0.4, 1.1}) {
        Particle p = gun(211 * charge, pt, eta, 0.7);
        p.vx = 1.2, p.vy = -0.4, p.vz = 10;
        const Trajectory t = propagate(p, charge, 1290, 3000, 3.8);
        const Reference r = integrate(p, charge, 1290, 3000, 3.8);
        ASSERT_TRUE(t.inside);
        EXPECT_NEAR(t.x, r.x, 0.1) << pt << " " << eta << " " << charge;
        EXPECT_NEAR(t.y, r.y, 0.1) << pt << " " << eta << " " << charge;
        EXPECT_NEAR(t.z, r.z, 0.1) << pt << " " << eta << " " << charge;
        EXPECT_NEAR(t.d0, r.d0, 1e-3) << pt << " " << eta << " " << charge;
        EXPECT_NEAR(t.dz, r.dz, 0.05) << pt << " " << eta << " " << charge;
      }
    }
  }
}

TEST(Detector, NeutralsGoStraightToBarrelOrEndCap) {
  const Trajectory barrel = propagate(gun(22, 5, 1.0, 0.5), 0, 1290, 3000, 3.8);
  EXPECT_NEAR(std::hypot(barrel.x, barrel.y), 1290, 1e-6);
  EXPECT_NEAR(barrel.eta(), 1.0, 1e-9);
  const Trajectory end_cap = propagate(gun(22, 5, -2.5, 0.5), 0, 1290, 3000, 3.8);
  EXPECT_NEAR(end_cap.z, -3000, 1e-6);
  EXPECT_NEAR(end_cap.phi(), 0.5, 1e-9);
}

TEST(Detector, ParticlesBornOutsideOrWithoutMomentumAreDropped) {
  Particle p = gun(211, 5, 0, 0, kPion);
  p.vx = 1300;
  EXPECT_FALSE(propagate(p, 1, 1290, 3000, 3.8).inside);
  EXPECT_FALSE(propagate(gun(22, 1e-5, 0, 0), 0, 1290, 3000, 3.8).inside);
}

TEST(Detector, LogNormalNumbersHaveTheirMeanAndWidth) {
  Rng rng(3);
  double sum = 0, square = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double x = log_normal(10, 4, rng.normal());
    sum += x, square += x * x;
  }
  EXPECT_NEAR(sum / n, 10, 0.05);
  EXPECT_NEAR(std::sqrt(square / n - std::pow(sum / n, 2)), 4, 0.1);
  EXPECT_EQ(log_normal(0, 1, 0.3), 0);
}

TEST(Detector, TowersHaveTheEdgesOfTheCard) {
  const Calorimeter& ecal = cms_card().ecal;
  EXPECT_EQ(ecal.find(0.0173, 0).ring, 0);
  EXPECT_EQ(ecal.find(0.0175, 0).ring, 1);
  EXPECT_EQ(ecal.find(-2.957, 0).ring, 169);
  EXPECT_EQ(ecal.find(-2.957, 0).side, -1);
  EXPECT_EQ(ecal.find(2.96, 0).ring, 170);
  EXPECT_EQ(ecal.find(5.01, 0).ring, -1);
  EXPECT_EQ(ecal.find(0, -M_PI).phi, 0);
  EXPECT_EQ(ecal.find(0, M_PI).phi, 359);
  EXPECT_NEAR(cms_card().hcal.rings[18].eta_high, 1.653, 1e-9);
  EXPECT_EQ(cms_card().hcal.rings.size(), 19U + 19U + 2U);
  EXPECT_EQ(cms_card().hcal.find(4.6, 0.1).phi, 9);  // 20 degrees wide
  EXPECT_NEAR(clicdet_card().ecal.rings.back().eta_high, 3, 1e-9);
  EXPECT_NEAR(clicdet_card().hcal.rings.back().eta_high, 3, 1e-9);
}

TEST(Detector, ImpactParameterErrorsFollowTheTableAndItsFits) {
  const auto at = [](double pt, double eta) { return from_pt_eta_phi_m(pt, eta, 0, 0); };
  EXPECT_NEAR(cms_card().d0_error(at(5, 0.5)), .0283, 1e-9);  // 4.4837 < pt <= 5.4772
  EXPECT_NEAR(cms_card().dz_error(at(200, 2.0)), .0850, 1e-9);
  EXPECT_EQ(cms_card().d0_error(at(.18, 0.5)), 0);
  EXPECT_NEAR(cms_card().d0_error(at(.1823000001, 0.5)), .3543, 1e-9);
  for (const double pt : {1.0, 3.0, 10.0, 40.0}) {
    EXPECT_NEAR(cms_card().d0_error(at(pt, 0.5)) / std::hypot(.0109, .0847 * std::pow(pt, -.78)), 1,
                .25);
    EXPECT_NEAR(cms_card().dz_error(at(pt, 2.0)) / std::hypot(.0784, .6524 * std::pow(pt, -.86)), 1,
                .25);
  }
  EXPECT_NEAR(clicdet_card().d0_error(at(1000, 0)), .005, 1e-4);
}

/// Events with one particle each.
struct Shots {
  double n = 0, pt = 0, pt2 = 0, d0_pull2 = 0;
};
Shots shoot(const DetectorCard& card, const Particle& p, CandidateKind kind, int shots) {
  Shots out;
  for (int i = 0; i < shots; ++i) {
    const Event event{.number = static_cast<std::uint64_t>(i), .particles = {p}};
    for (const Candidate& c : run_detector(card, event, Rng(1).fork(event.number)).candidates) {
      if (c.kind == kind) {
        out.n += 1;
        out.pt += c.p4.pt();
        out.pt2 += c.p4.pt() * c.p4.pt();
        out.d0_pull2 += std::pow(c.d0 / c.d0err, 2);
      }
    }
  }
  return out;
}

TEST(Detector, MuonsHaveTheEfficiencyResolutionAndPullsOfTheCard) {
  const int shots = 20000;
  const Shots s = shoot(cms_card(), gun(13, 30, 0.3, 0.1, .10566), CandidateKind::muon, shots);
  EXPECT_NEAR(s.n / shots, .99, .004);
  const double mean = s.pt / s.n;
  EXPECT_NEAR(mean, 30, .02);
  EXPECT_NEAR(std::sqrt(s.pt2 / s.n - mean * mean) / 30, std::hypot(.01, 30 * 1e-4), 5e-4);
  EXPECT_NEAR(s.d0_pull2 / s.n, 1, .05);
}

TEST(Detector, SlowHadronsAreFoundLessOftenForwardThanInTheBarrel) {
  const int shots = 5000;
  EXPECT_NEAR(
      shoot(cms_card(), gun(211, .8, 0.3, 1, kPion), CandidateKind::charged_hadron, shots).n /
          shots,
      .70, .03);
  EXPECT_NEAR(
      shoot(cms_card(), gun(211, .8, 2.0, 1, kPion), CandidateKind::charged_hadron, shots).n /
          shots,
      .60, .03);
  EXPECT_EQ(shoot(cms_card(), gun(211, 5, 2.6, 1, kPion), CandidateKind::charged_hadron, 200).n, 0);
}

TEST(Detector, PhotonsAndNeutronsBecomeNeutralsOfTheirCalorimeter) {
  const int shots = 5000;
  const Shots photon = shoot(cms_card(), gun(22, 50, 0.5, 0.1), CandidateKind::photon, shots);
  EXPECT_NEAR(photon.n / shots, 1, .01);
  EXPECT_NEAR(photon.pt / photon.n, 50, .3);
  const Shots neutron =
      shoot(cms_card(), gun(2112, 50, 0.5, 0.1, .9396), CandidateKind::neutral_hadron, shots);
  EXPECT_NEAR(neutron.n / shots, 1, .01);
  EXPECT_NEAR(neutron.pt / neutron.n, 50, 1.0);
  EXPECT_EQ(shoot(cms_card(), gun(2112, 50, 0.5, 0.1, .9396), CandidateKind::photon, 200).n, 0);
}

TEST(Detector, MuonsAndNeutrinosLeaveNoCalorimeterEnergy) {
  for (const int pid : {13, 12}) {
    const Event event{.number = 0, .particles = {gun(pid, 50, 0.1, 0.1)}};
    const DetectorOutput out = run_detector(cms_card(), event, Rng(1));
    EXPECT_TRUE(out.ecal.empty() && out.hcal.empty());
    EXPECT_LE(out.candidates.size(), pid == 13 ? 1U : 0U);
  }
}

TEST(Detector, ATrackAndItsTowerShareTheirEnergyOnce) {
  // a single pion: track and tower measure the same energy, the sum of candidates must stay near it
  double sum = 0;
  const int shots = 4000;
  for (int i = 0; i < shots; ++i) {
    const Event event{.number = 0, .particles = {gun(211, 60, 0.2, 0.4, kPion)}};
    for (const Candidate& c :
         run_detector(cms_card(), event, Rng(2).fork(static_cast<std::uint64_t>(i))).candidates) {
      sum += c.p4.pt() / shots;
    }
  }
  EXPECT_GT(sum, 57);
  EXPECT_LT(sum, 69);  // upward: only excesses of the tower are kept
}

TEST(Detector, TheLiteralDelphesModeLetsTracksTakeTheTowerEnergy) {
  DetectorCard card = cms_card();
  card.track_momentum = TrackMomentum::delphes;
  double spread = 0, n = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const Event event{.number = i, .particles = {gun(211, 60, 0.2, 0.4, kPion)}};
    for (const Candidate& c : run_detector(card, event, Rng(2).fork(i)).candidates) {
      if (c.kind == CandidateKind::charged_hadron) {
        spread += std::pow(c.p4.pt() / 60 - 1, 2), n += 1;
      }
    }
  }
  // tower resolution at 60 GeV: hypot(.05, 1.5 / sqrt(60)) = .2; the track alone would have .13
  EXPECT_GT(std::sqrt(spread / n), .10);
}

TEST(Detector, ResultsDependOnTheKeyAndNotOnWhatElseIsInTheEvent) {
  const Particle muon = gun(13, 30, 0.3, 0.1, .10566);
  const Event alone{.number = 0, .particles = {muon}};
  const Event crowded{.number = 0,
                      .particles = {muon, gun(22, 80, -1, 2), gun(211, 9, 1, -2, kPion)}};
  const auto a = run_detector(cms_card(), alone, Rng(5)),
             b = run_detector(cms_card(), crowded, Rng(5));
  ASSERT_FALSE(a.candidates.empty());
  EXPECT_EQ(a.candidates[0].p4, b.candidates[0].p4);
  EXPECT_NE(a.candidates[0].p4.px, run_detector(cms_card(), alone, Rng(6)).candidates.at(0).p4.px);
}

}  // namespace
}  // namespace tessera
