#include "train/simulation/truth.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

namespace tessera {
namespace {

Particle particle(int pid, double eta, double phi, double pt = 100) {
  Particle p;
  p.pid = pid;
  p.p4 = from_pt_eta_phi_m(pt, eta, phi, 0);
  return p;
}

// A decaying particle followed by its daughters, placed at the end of the event.
void decay(Event& event, std::size_t mother, const std::vector<Particle>& products) {
  event.particles[mother].daughter1 = static_cast<std::int32_t>(event.particles.size());
  event.particles[mother].daughter2 =
      static_cast<std::int32_t>(event.particles.size() + products.size()) - 1;
  for (Particle p : products) {
    p.mother = static_cast<std::int32_t>(mother);
    event.particles.push_back(p);
  }
}

Event resonance(int pid, const std::vector<Particle>& products) {
  Event event;
  event.particles.push_back(particle(pid, 0, 0));
  event.particles.push_back(particle(pid, 0, 0));  // its copy after radiation
  event.particles[0].daughter1 = event.particles[0].daughter2 = 1;
  decay(event, 1, products);
  return event;
}

const FourVector kAxis = from_pt_eta_phi_m(600, 0, 0, 100);

JetClassMatch match_two(int pid, int a, int b, double second_phi = 0.3) {
  return match_jetclass(resonance(pid, {particle(a, 0, 0.2), particle(b, 0, second_phi)}), kAxis);
}

TEST(Truth, TwoBodyDecaysGetTheirJetClassCodes) {
  EXPECT_EQ(match_two(25, 5, -5).code, 41);
  EXPECT_EQ(match_two(25, 4, -4).code, 42);
  EXPECT_EQ(match_two(25, 1, -1).code, 43);
  EXPECT_EQ(match_two(25, 21, 21).code, 44);
  EXPECT_EQ(match_two(23, 5, -5).code, 31);
  EXPECT_EQ(match_two(23, 4, -4).code, 32);
  EXPECT_EQ(match_two(23, 2, -2).code, 33);
  EXPECT_EQ(match_two(24, 4, -3).code, 21);
  EXPECT_EQ(match_two(24, 2, -1).code, 22);
  EXPECT_EQ(match_two(24, 2, -1).particle, 1);  // the last copy
  EXPECT_EQ(match_two(24, 2, -1).label, 7);
}

TEST(Truth, AProductOutsideTheJetLeavesASignalEventUnmatched) {
  const JetClassMatch m = match_two(25, 5, -5, 0.9);
  EXPECT_FALSE(m.keep);
  EXPECT_EQ(m.label, -1);
}

TEST(Truth, AnInvisibleZLeavesAQcdJet) {
  const JetClassMatch m = match_two(23, 12, -12);
  EXPECT_TRUE(m.keep);
  EXPECT_EQ(m.label, 0);
}

Event top(double b_phi, int w1, int w2) {
  Event event = resonance(6, {particle(24, 0, 0.1), particle(5, 0, b_phi)});
  decay(event, 2, {particle(w1, 0.1, 0), particle(w2, -0.1, 0)});
  return event;
}

TEST(Truth, TopsAreMatchedWhenAllTheirProductsAreInside) {
  EXPECT_EQ(match_jetclass(top(0.2, 4, -3), kAxis).code, 11);
  EXPECT_EQ(match_jetclass(top(0.2, 2, -1), kAxis).code, 12);
  EXPECT_EQ(match_jetclass(top(0.2, -11, 12), kAxis).code, 15);
  EXPECT_EQ(match_jetclass(top(0.2, -13, 14), kAxis).label, 9);
  EXPECT_FALSE(match_jetclass(top(0.2, -15, 16), kAxis).keep);  // tau is not accepted
}

TEST(Truth, AHadronicTopWithItsBOutsideIsTestedAsWAndRejected) {
  const JetClassMatch m = match_jetclass(top(1.5, 2, -1), kAxis);
  EXPECT_EQ(m.code, 22);
  EXPECT_FALSE(m.keep);
}

TEST(Truth, HiggsToWWCountsQuarksAndLeptonsInside) {
  for (const auto& [a, b, code] : {std::tuple{2, -1, 45}, std::tuple{-11, 12, 46}}) {
    Event event = resonance(25, {particle(24, 0, 0.1), particle(-24, 0, -0.1)});
    decay(event, 2, {particle(a, 0.1, 0), particle(b, -0.1, 0)});
    decay(event, 3, {particle(-2, 0, 0.2), particle(1, 0, -0.2)});
    EXPECT_EQ(match_jetclass(event, kAxis).code, code);
  }
}

TEST(Truth, TauDecayModesFollowTheChargedAndNeutralCount) {
  EXPECT_EQ(tau_decay_mode({16, -211}), 0);
  EXPECT_EQ(tau_decay_mode({16, -211, 111}), 1);
  EXPECT_EQ(tau_decay_mode({16, -321, 111, 111}), 2);
  EXPECT_EQ(tau_decay_mode({16, -211, 111, 111, 111, 111, 111}), 4);
  EXPECT_EQ(tau_decay_mode({16, -211, 310}), 1);  // a neutral kaon counts as neutral
  EXPECT_EQ(tau_decay_mode({16, -211, -211, 211}), 10);
  EXPECT_EQ(tau_decay_mode({16, -211, -211, 211, 111}), 11);
  EXPECT_EQ(tau_decay_mode({16, -211, 22}), 15);  // any other direct daughter
  EXPECT_EQ(tau_decay_mode({16, -211, -211, -211, 211, 211}), 15);
  EXPECT_EQ(tau_decay_mode({16, 11, -12}), 16);
}

TEST(Truth, ReducedDecayModesFollowTheOriginalCode) {
  const std::map<int, int> expected = {{-1, 15}, {0, 0},   {1, 1},   {2, 2},   {3, 2},
                                       {4, 2},   {5, 10},  {6, 11},  {9, 11},  {10, 10},
                                       {11, 11}, {12, 11}, {14, 11}, {15, 15}, {16, 15}};
  for (const auto& [mode, reduced] : expected) {
    EXPECT_EQ(reduced_decay_mode(mode), reduced) << mode;
  }
}

TEST(Truth, TheVisibleTauIsTheSumWithoutNeutrinosOfTheLastCopy) {
  const Event event =
      resonance(15, {particle(16, 0, 0, 20), particle(-211, 0, 0, 30), particle(111, 0, 0, 10)});
  const auto taus = visible_taus(event);
  ASSERT_EQ(taus.size(), 1U);
  EXPECT_NEAR(taus[0].p4.pt(), 40, 1e-9);
  EXPECT_EQ(taus[0].decay_mode, 1);
}

TEST(Truth, NearestHonoursItsLimit) {
  const std::vector<FourVector> axes = {from_pt_eta_phi_m(10, 0, 0.35, 0),
                                        from_pt_eta_phi_m(10, 0, -0.2, 0)};
  EXPECT_EQ(nearest(kAxis, axes, 0.3), std::optional<std::size_t>(1));
  EXPECT_FALSE(nearest(kAxis, axes, 0.1).has_value());
}

TEST(Truth, ChargesFollowTheParticleNumberingScheme) {
  const std::map<int, int> expected = {
      {11, -1},   {-13, 1},  {22, 0},    {211, 1},   {-211, -1},  {321, 1},  {-321, -1},
      {130, 0},   {310, 0},  {111, 0},   {2212, 1},  {-2212, -1}, {2112, 0}, {3122, 0},
      {3112, -1}, {3222, 1}, {3312, -1}, {3334, -1}, {411, 1},    {521, 1},  {511, 0},
      {421, 0},   {24, 1},   {12, 0},    {431, 1},   {221, 0}};
  for (const auto& [pid, charge] : expected) {
    EXPECT_EQ(pdg_charge(pid), charge) << pid;
  }
}

}  // namespace
}  // namespace tessera
