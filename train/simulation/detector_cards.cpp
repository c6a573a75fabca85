// The cards: numbers only. CMS: jet-universe/jetclass_generation delphes_card.tcl. CLICdet:
// delphes/delphes cards/delphes_card_CLICdet_Stage1.tcl.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "train/simulation/detector.h"

namespace tessera {
namespace {

using Kind = CandidateKind;

double ecal_fraction(std::int32_t pid) {
  const int a = std::abs(pid);
  return a == 11 || a == 22 || a == 111 ? 1.0 : a == 310 || a == 3122 ? 0.3 : 0.0;
}
double hcal_fraction(std::int32_t pid) {
  switch (std::abs(pid)) {
    case 310:
    case 3122:
      return 0.7;
    case 11:
    case 12:
    case 13:
    case 14:
    case 16:
    case 22:
    case 111:
      return 0;
    default:
      return 1;
  }
}

void add_rings(std::vector<TowerRing>& rings, int count, double width, double phi_deg) {
  const double begin = rings.empty() ? 0 : rings.back().eta_high;
  for (int i = 1; i <= count; ++i) {
    rings.push_back({begin + i * width, phi_deg});
  }
}
void add_edges(std::vector<TowerRing>& rings, std::initializer_list<double> edges, double phi_deg) {
  for (const double edge : edges) {
    rings.push_back({edge, phi_deg});
  }
}

// ---- CMS ----

double cms_efficiency(Kind kind, const FourVector& p, double eta) {
  const double a = std::abs(eta), pt = p.pt();
  if (pt <= 0.1 || a > 2.5) {
    return 0;
  }
  const bool barrel = a <= 1.5;
  switch (kind) {
    case Kind::electron:
      return pt <= 1     ? (barrel ? .73 : .50)
             : pt <= 100 ? (barrel ? .95 : .83)
                         : (barrel ? .99 : .90);
    case Kind::muon:
      if (pt <= 1) {
        return barrel ? .75 : .70;
      }
      return (barrel ? .99 : .98) * (pt <= 1000 ? 1 : std::exp(0.5 - 5e-4 * pt));
    default:
      return pt <= 1 ? (barrel ? .70 : .60) : (barrel ? .95 : .85);
  }
}

double cms_momentum_resolution(Kind kind, double pt, double eta) {
  const double a = std::abs(eta);
  const std::size_t region = a <= 0.5 ? 0 : a <= 1.5 ? 1 : 2;
  using Table = std::array<std::array<double, 2>, 3>;
  static constexpr Table hadron = {{{.06, 1.3e-3}, {.10, 1.7e-3}, {.25, 3.1e-3}}};
  static constexpr Table electron = {{{.03, 1.3e-3}, {.05, 1.7e-3}, {.15, 3.1e-3}}};
  static constexpr Table muon = {{{.01, 1.0e-4}, {.015, 1.5e-4}, {.025, 3.5e-4}}};
  const Table& t = kind == Kind::electron ? electron : kind == Kind::muon ? muon : hadron;
  return std::hypot(t[region][0], t[region][1] * pt);
}

using ImpactRow = std::array<double, 34>;
constexpr ImpactRow kImpactPt = {
    .1823,   .2227,   .2720,   .3323,   .4060,   .4959,    .6058,   .7401,   .9041,
    1.1044,  1.3492,  1.6481,  2.0134,  2.4595,  3.0045,   3.6703,  4.4837,  5.4772,
    6.6910,  8.1737,  9.9849,  12.1976, 14.9005, 18.2024,  22.2360, 27.1635, 33.1828,
    40.5360, 49.5187, 60.4919, 73.8967, 90.2720, 110.2760, 134.7130};  // lower edges, GeV
// Micrometres, by region |eta| <= 0.9, 1.4, 2.5.
constexpr std::array<ImpactRow, 3> kD0 = {
    {{354.3, 280.9, 230.4, 191.7, 173.7, 143.4, 106.0, 89.3, 75.3, 67.0, 57.7, 52.4,
      45.2,  37.6,  35.0,  32.4,  28.3,  25.8,  23.7,  21.1, 19.1, 16.4, 15.0, 14.3,
      13.0,  13.0,  11.6,  11.6,  11.0,  11.0,  11.0,  10.4, 10.9, 11.0},
     {456.4, 358.0, 301.0, 235.3, 202.6, 159.5, 138.3, 111.9, 92.6, 81.6, 66.3, 55.3,
      48.8,  43.1,  39.9,  35.7,  31.3,  27.7,  23.3,  22.1,  21.4, 18.0, 15.5, 14.1,
      12.8,  13.4,  12.1,  10.8,  10.1,  10.1,  10.1,  10.2,  8.8,  9.5},
     {697.0, 604.6, 531.5, 430.6, 339.8, 278.8, 238.7, 181.4, 155.7, 123.0, 100.9, 91.4,
      76.7,  63.8,  54.4,  46.8,  42.5,  38.5,  33.1,  27.8,  25.6,  23.6,  21.7,  19.6,
      17.6,  16.5,  15.7,  15.0,  14.4,  14.4,  13.7,  13.0,  13.7,  13.7}}};
constexpr std::array<ImpactRow, 3> kDz = {
    {{369.3, 313.5, 312.5, 257.8, 222.1, 193.6, 168.6, 135.1, 111.3, 98.3, 88.2, 78.6,
      68.4,  61.5,  55.1,  51.6,  48.4,  45.0,  41.6,  41.6,  38.2,  35.0, 31.7, 31.6,
      31.6,  31.6,  34.8,  31.6,  31.6,  31.6,  28.4,  28.3,  31.5,  31.8},
     {706.2, 601.0, 599.2, 495.9, 387.7, 319.9, 264.9, 251.8, 198.2, 158.7, 139.9, 119.9,
      103.1, 96.7,  80.5,  73.6,  70.7,  60.3,  60.9,  54.1,  51.1,  44.3,  40.9,  40.8,
      40.9,  37.7,  37.5,  37.7,  34.2,  34.2,  34.3,  34.3,  30.9,  31.0},
     {2171.7, 2071.5, 2067.9, 1767.9, 1439.3, 1199.7, 980.0, 825.1, 669.5, 554.5, 436.6, 371.1,
      331.9,  272.1,  244.3,  208.5,  181.6,  164.1,  145.1, 131.7, 111.7, 102.0, 101.7, 98.3,
      88.2,   84.7,   81.4,   78.4,   81.7,   75.0,   81.6,  82.0,  81.4,  85.0}}};

double cms_impact(const std::array<ImpactRow, 3>& table, const FourVector& p) {
  const double a = std::abs(p.eta()), pt = p.pt();
  const std::size_t region = a <= 0.9 ? 0 : a <= 1.4 ? 1 : 2;
  // lower < pt <= upper
  const auto above = std::lower_bound(kImpactPt.begin(), kImpactPt.end(), pt);
  return above == kImpactPt.begin()
             ? 0
             : 1e-3 * table[region][static_cast<std::size_t>(above - kImpactPt.begin()) - 1];
}
double cms_d0(const FourVector& p) { return cms_impact(kD0, p); }
double cms_dz(const FourVector& p) { return cms_impact(kDz, p); }

double cms_ecal_resolution(double e, double eta) {
  const double a = std::abs(eta);
  const double core = std::sqrt(std::pow(.008 * e, 2) + .11 * .11 * e + .40 * .40);
  if (a <= 1.5) {
    return (1 + .64 * eta * eta) * core;
  }
  if (a <= 2.5) {
    return (2.16 + 5.6 * (a - 2) * (a - 2)) * core;
  }
  return std::sqrt(std::pow(.107 * e, 2) + 2.08 * 2.08 * e);
}
double cms_hcal_resolution(double e, double eta) {
  return std::abs(eta) <= 3 ? std::sqrt(std::pow(.05 * e, 2) + 1.5 * 1.5 * e)
                            : std::sqrt(std::pow(.13 * e, 2) + 2.7 * 2.7 * e);
}

std::vector<TowerRing> cms_ecal_rings() {
  std::vector<TowerRing> rings;
  add_rings(rings, 170, .0174, 1);
  add_edges(rings, {3.125, 3.3, 3.475, 3.65, 3.825, 4.0, 4.175, 4.35, 4.525, 4.7, 5.0}, 10);
  return rings;
}
std::vector<TowerRing> cms_hcal_rings() {
  std::vector<TowerRing> rings;
  add_rings(rings, 19, .087, 5);
  add_edges(rings,
            {1.74, 1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65, 2.868, 2.95, 3.125, 3.3, 3.475, 3.65,
             3.825, 4.0, 4.175, 4.35, 4.525},
            10);
  add_edges(rings, {4.7, 5.0}, 20);
  return rings;
}

// ---- CLICdet ----

double clic_efficiency(Kind kind, const FourVector& p, double eta) {
  const double a = std::abs(eta);
  if (p.pt() <= 0.1 || a > 2.54) {
    return 0;
  }
  switch (kind) {
    case Kind::electron:
      if (p.e >= 80) {
        return a > 2.44 ? .993 : a > 2.34 ? .997 : 1;
      }
      return p.e >= 5 ? (a > 2.17 ? .998 : 1) : a > .76 ? .997 : .999;
    case Kind::muon:
      return a > 2.44 ? (p.e >= 80 ? .994 : .996) : a > 2.25 && p.e < 5 ? .999 : 1;
    default:
      if (p.e < 3) {
        return a > .55 ? .990 : 1;
      }
      return p.e < 80 && a > 2.34 ? .994 : 1;
  }
}

double clic_momentum_resolution(Kind kind, double pt, double eta) {
  const double a = std::abs(eta);
  const std::size_t region = a < .18 ? 0 : a < .45 ? 1 : a < .88 ? 2 : a < 1.32 ? 3 : 4;
  using Table = std::array<std::array<double, 2>, 5>;
  static constexpr Table hadron = {{{.00209, 1.328e-5},
                                    {.00221, 1.283e-5},
                                    {.00255, 1.168e-5},
                                    {.00392, 1.124e-5},
                                    {.0149, 8.56e-5}}};
  static constexpr Table electron = {{{.00292, 1.407e-5},
                                      {.00318, 1.331e-5},
                                      {.00399, 1.155e-5},
                                      {.00664, 1.092e-5},
                                      {.0178, 8.62e-5}}};
  static constexpr Table muon = {{{.00204, 1.297e-5},
                                  {.00219, 1.201e-5},
                                  {.00242, 1.196e-5},
                                  {.00380, 9.82e-6},
                                  {.0149, 4.57e-5}}};
  const Table& t = kind == Kind::electron ? electron : kind == Kind::muon ? muon : hadron;
  return (a < 1.74 ? 1 : 2) * std::hypot(t[region][0], t[region][1] * pt);
}

// CLIC's goal for d0, hypot(5 um, 15 um / (p sin^1.5 theta)); the same is assumed for z0 sin theta.
double clic_d0(const FourVector& p) {
  const double sine = p.pt() / p.p();
  return 1e-3 * std::hypot(5, 15 / (p.p() * std::pow(sine, 1.5)));
}
double clic_dz(const FourVector& p) { return clic_d0(p) * p.p() / p.pt(); }

double clic_ecal_resolution(double e, double eta) {
  const double a = std::abs(eta);
  const double stochastic = a <= .78 ? .156 : a <= .83 ? .175 : .151;
  // the card writes energy^0.01^2 for one region, where energy^2*0.01^2 is meant
  return std::sqrt(std::pow(.01 * e, 2) + stochastic * stochastic * e);
}
double clic_hcal_resolution(double e, double eta) {
  const double a = std::abs(eta);
  static constexpr std::array<std::array<double, 3>, 4> table = {
      {{1.38, .308, .050}, {1.25, .322, .048}, {1.159, .341, .049}, {1.09, .319, .052}}};
  const auto& [n, k, d] = table[a <= .3 ? 0 : a <= .78 ? 1 : a <= 1.099 ? 2 : 3];
  return std::sqrt(n * n + k * k * e + std::pow(d * e, 2));
}

std::vector<TowerRing> clic_ecal_rings() {
  std::vector<TowerRing> rings;
  add_rings(rings, 400, .003, .2);
  add_rings(rings, 65, .02, .8);
  add_rings(rings, 25, .02, 1);
  return rings;
}
std::vector<TowerRing> clic_hcal_rings() {
  std::vector<TowerRing> rings;
  add_rings(rings, 45, .02, 1);
  add_rings(rings, 21, .1, 6);
  return rings;
}

}  // namespace

const DetectorCard& cms_card() {
  static const DetectorCard card{
      .name = "cms-jetclass-1",
      .radius_mm = 1290,
      .half_length_mm = 3000,
      .bz_tesla = 3.8,
      .efficiency = cms_efficiency,
      .momentum_resolution = cms_momentum_resolution,
      .d0_error = cms_d0,
      .dz_error = cms_dz,
      .ecal = {cms_ecal_rings(), 0.5, 2, ecal_fraction, cms_ecal_resolution, Kind::photon},
      .hcal = {cms_hcal_rings(), 1, 1, hcal_fraction, cms_hcal_resolution, Kind::neutral_hadron},
  };
  return card;
}

const DetectorCard& clicdet_card() {
  static const DetectorCard card{
      .name = "clicdet-1",
      .radius_mm = 1500,
      .half_length_mm = 2310,
      .bz_tesla = 4.0,
      .efficiency = clic_efficiency,
      .momentum_resolution = clic_momentum_resolution,
      .d0_error = clic_d0,
      .dz_error = clic_dz,
      .ecal = {clic_ecal_rings(), 0.5, 1, ecal_fraction, clic_ecal_resolution, Kind::photon},
      .hcal = {clic_hcal_rings(), 1, 1, hcal_fraction, clic_hcal_resolution, Kind::neutral_hadron},
      .pion_mass = true,
  };
  return card;
}

}  // namespace tessera
