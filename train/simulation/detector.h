// Parametrised detectors: tracks and calorimeter towers joined by energy flow, after Delphes
// (arXiv:1307.6346). The numbers are those of the public JetClass and CLICdet cards.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "train/simulation/particles.h"

namespace tessera {

/// What the detector tells apart; the values are those of column pf/pid.
enum class CandidateKind : std::int8_t {
  none = 0,
  charged_hadron = 1,
  neutral_hadron = 2,
  photon = 3,
  electron = 4,
  muon = 5,
};

inline constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

/// A particle-flow candidate. Impact parameters and their errors in mm, NaN for neutrals.
struct Candidate {
  FourVector p4;
  double mass = 0;
  int charge = 0;
  CandidateKind kind = CandidateKind::none;
  double d0 = kNotMeasured, d0err = kNotMeasured, dz = kNotMeasured, dzerr = kNotMeasured;
};

/// Where a particle leaves the tracker, and its closest approach to the beam line.
struct Trajectory {
  bool inside = false;  ///< false: produced outside, or pt^2 < 1e-9 GeV^2; nothing else is set
  double x = 0, y = 0, z = 0;  ///< at the calorimeter surface, mm
  double phi_dca = 0;          ///< momentum direction at closest approach (charged), else its own
  double d0 = 0, dz = 0;       ///< mm; d0 = (x py - y px) / pt and z at closest approach
  [[nodiscard]] double eta() const { return FourVector{x, y, z, 0}.eta(); }
  [[nodiscard]] double phi() const { return std::atan2(y, x); }
};

/// Helix (straight line for charge 0) from the production point to the cylinder of radius_mm and
/// half_length_mm in a field of bz_tesla along z.
Trajectory propagate(const Particle& particle, int charge, double radius_mm, double half_length_mm,
                     double bz_tesla);

/// Tower edges in |eta|; each ring lists its width in phi.
struct TowerRing {
  double eta_high;  ///< upper edge in |eta|; the lower one is the ring before
  double phi_width_deg;
};
struct TowerId {
  int ring = -1;  ///< index of the ring, -1 = outside
  int side = 1;   ///< sign of eta
  int phi = 0;
};

struct Calorimeter {
  std::vector<TowerRing> rings;
  double energy_min = 0, significance_min = 0;
  double (*fraction)(std::int32_t pid) = nullptr;             ///< of the energy seen, by PDG code
  double (*resolution)(double energy, double eta) = nullptr;  ///< sigma in GeV
  CandidateKind neutral = CandidateKind::photon;              ///< what an excess is called

  [[nodiscard]] TowerId find(double eta, double phi) const;
  [[nodiscard]] double eta_low(int ring) const {
    return ring == 0 ? 0 : rings[static_cast<std::size_t>(ring) - 1].eta_high;
  }
};

/// How track momenta reach the output: smeared, or as Delphes does literally, whose track smearing
/// undoes the momentum smearing and gives tracks no weight against the tower.
enum class TrackMomentum : std::uint8_t { smeared, delphes };

struct DetectorCard {
  std::string name;
  double radius_mm = 0, half_length_mm = 0, bz_tesla = 0;
  /// Arguments: kind, momentum, eta of the position at the calorimeter.
  double (*efficiency)(CandidateKind, const FourVector&, double eta) = nullptr;
  double (*momentum_resolution)(CandidateKind, double pt, double eta) = nullptr;  ///< relative
  /// Standard deviations in mm, argument: smeared momentum.
  double (*d0_error)(const FourVector&) = nullptr;
  double (*dz_error)(const FourVector&) = nullptr;
  Calorimeter ecal, hcal;
  TrackMomentum track_momentum = TrackMomentum::smeared;
  bool pion_mass = false;  ///< tracks of hadrons get the pion mass, as a particle-flow program does
};

/// The CMS-like card of JetClass. Efficiency takes eta of the position, as Delphes does: tracks
/// below about 0.3 GeV that curl into the end caps are lost (2.5 charged constituents a QCD jet;
/// measured).
const DetectorCard& cms_card();
/// CLICdet, for e+e-; d0 and dz are ours, since that card smears none.
const DetectorCard& clicdet_card();

/// A log-normal number of mean m and standard deviation s from a standard normal g; 0 for m <= 0.
double log_normal(double mean, double sigma, double g);

/// A tower after smearing and thresholds, for images and tests.
struct Tower {
  double eta = 0, phi = 0, energy = 0;
};
struct DetectorOutput {
  std::vector<Candidate> candidates;  ///< tracks, then photons, then neutral hadrons
  std::vector<Tower> ecal, hcal;
};

/// Runs the card on the final state. Random numbers are indexed by (key, particle or tower), so the
/// result does not depend on the order of events or on threads; give each event its own key.
DetectorOutput run_detector(const DetectorCard& card, const Event& event, const Rng& rng);

}  // namespace tessera
