#include "train/simulation/detector.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <tuple>

namespace tessera {

double log_normal(double mean, double sigma, double g) {
  if (mean <= 0) {
    return 0;
  }
  const double b = std::sqrt(std::log(1 + sigma * sigma / (mean * mean)));
  return std::exp(std::log(mean) - 0.5 * b * b + b * g);
}

namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

double wrap_positive(double angle) {
  const double a = std::fmod(angle, kTwoPi);
  return a < 0 ? a + kTwoPi : a;
}

// Distance along the unit transverse direction until the radius or the end cap is reached.
Trajectory propagate_straight(const Particle& p, double radius, double half_length) {
  const double pt = p.p4.pt(), ux = p.p4.px / pt, uy = p.p4.py / pt, uz = p.p4.pz / pt;
  const double along = p.vx * ux + p.vy * uy;
  const double r2 = p.vx * p.vx + p.vy * p.vy;
  double path = -along + std::sqrt(along * along + radius * radius - r2);
  if (uz != 0) {
    path = std::min(path, (std::copysign(half_length, uz) - p.vz) / uz);
  }
  return {.inside = true,
          .x = p.vx + path * ux,
          .y = p.vy + path * uy,
          .z = p.vz + path * uz,
          .phi_dca = p.p4.phi(),
          .d0 = p.vx * uy - p.vy * ux,
          .dz = p.vz - along * uz};
}

// A positive charge turns clockwise seen from +z: phi(a) = phi0 - q a with the turning angle a >=
// 0.
Trajectory propagate_helix(const Particle& p, int charge, double radius, double half_length,
                           double bz) {
  const double pt = p.p4.pt(), phi0 = p.p4.phi(), q = charge > 0 ? 1 : -1;
  const double r = 1000 * pt / (0.299792458 * std::abs(charge) * bz);  // mm
  const double pitch = r * p.p4.pz / pt;                               // mm in z per radian turned
  const double xc = p.vx + q * r * std::sin(phi0), yc = p.vy - q * r * std::cos(phi0);
  const double dc = std::hypot(xc, yc), to_centre = std::atan2(yc, xc);
  const double start = phi0 + q * std::numbers::pi / 2;  // from the centre to the production point
  double turn = std::numeric_limits<double>::infinity();
  if (pitch != 0) {
    turn = (std::copysign(half_length, pitch) - p.vz) / pitch;
  }
  if (r + dc > radius) {
    const double c = (radius * radius - dc * dc - r * r) / (2 * dc * r);
    const double opening = std::acos(std::clamp(c, -1.0, 1.0));
    for (const double crossing : {to_centre + opening, to_centre - opening}) {
      turn = std::min(turn, wrap_positive(q * (start - crossing)));
    }
  } else if (pitch == 0) {
    return {};  // turns for ever inside
  }
  const double at = start - q * turn;
  const double closest = std::atan2(-yc, -xc);
  const double phi_dca = closest - q * std::numbers::pi / 2;
  const double xd = xc + r * std::cos(closest), yd = yc + r * std::sin(closest);
  const double turn_back = std::remainder(q * (start - closest), kTwoPi);
  return {.inside = true,
          .x = xc + r * std::cos(at),
          .y = yc + r * std::sin(at),
          .z = p.vz + pitch * turn,
          .phi_dca = delta_phi(phi_dca, 0),
          .d0 = xd * std::sin(phi_dca) - yd * std::cos(phi_dca),
          .dz = p.vz + pitch * turn_back};
}

}  // namespace

Trajectory propagate(const Particle& particle, int charge, double radius_mm, double half_length_mm,
                     double bz_tesla) {
  const double pt = particle.p4.pt();
  if (pt * pt < 1e-9 || std::hypot(particle.vx, particle.vy) > radius_mm ||
      std::abs(particle.vz) > half_length_mm) {
    return {};
  }
  return charge == 0 ? propagate_straight(particle, radius_mm, half_length_mm)
                     : propagate_helix(particle, charge, radius_mm, half_length_mm, bz_tesla);
}

TowerId Calorimeter::find(double eta, double phi) const {
  const double a = std::abs(eta);
  const auto ring = std::upper_bound(rings.begin(), rings.end(), a,
                                     [](double x, const TowerRing& r) { return x < r.eta_high; });
  if (ring == rings.end()) {
    return {};
  }
  const double width = ring->phi_width_deg * std::numbers::pi / 180;
  const int count = static_cast<int>(std::lround(360 / ring->phi_width_deg));
  const int bin =
      std::clamp(static_cast<int>(std::floor((phi + std::numbers::pi) / width)), 0, count - 1);
  return {.ring = static_cast<int>(ring - rings.begin()), .side = eta < 0 ? -1 : 1, .phi = bin};
}

namespace {

/// A reconstructed track on its way through the calorimeters.
struct Track {
  Candidate candidate;
  std::int32_t pid;
  double eta, phi;    // at the calorimeter surface
  double resolution;  // relative, of the energy
};
/// A particle at the calorimeter surface.
struct Deposit {
  std::int32_t pid;
  double energy, eta, phi;
};

// Purposes of random numbers: part of the stream's name, so that none shares a number.
struct Draws {
  RngKey tracks, ecal, hcal;
};

struct NormalPair {
  double first, second;
};
// Box-Muller from four words; u in (0, 1).
NormalPair normal_pair(std::uint32_t a, std::uint32_t b) {
  const double radius = std::sqrt(-2 * std::log((a + 0.5) * 0x1.0p-32));
  const double angle = kTwoPi * (b * 0x1.0p-32);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

CandidateKind track_kind(std::int32_t pid) {
  const int a = std::abs(pid);
  return a == 11   ? CandidateKind::electron
         : a == 13 ? CandidateKind::muon
                   : CandidateKind::charged_hadron;
}

constexpr double kPionMass = 0.13957039;  // GeV, PDG 2022

// Returns whether the track is found.
bool make_track(const DetectorCard& card, const Particle& p, int charge, const Trajectory& at,
                const RngKey& key, std::uint64_t index, Track& track) {
  const CandidateKind kind = track_kind(p.pid);
  const Philox4 words = key.block(2 * index), more = key.block(2 * index + 1);
  if (words.x * 0x1.0p-32 >= card.efficiency(kind, p.p4, at.eta())) {
    return false;
  }
  const double pt = p.p4.pt(), eta = p.p4.eta();
  const double resolution = std::min(1.0, card.momentum_resolution(kind, pt, at.eta()));
  const bool literal = card.track_momentum == TrackMomentum::delphes;
  const double smeared =
      literal ? pt : log_normal(pt, resolution * pt, normal_pair(words.z, words.w).first);
  const double mass = card.pion_mass && kind == CandidateKind::charged_hadron ? kPionMass : p.m;
  Candidate c{.p4 = from_pt_eta_phi_m(smeared, eta, at.phi_dca, mass),
              .mass = mass,
              .charge = charge,
              .kind = kind};
  const NormalPair g = normal_pair(more.x, more.y);
  c.d0err = card.d0_error(c.p4);
  c.dzerr = card.dz_error(c.p4);
  c.d0 = at.d0 + c.d0err * g.first;
  c.dz = at.dz + c.dzerr * g.second;
  track = {.candidate = c,
           .pid = p.pid,
           .eta = at.eta(),
           .phi = at.phi(),
           .resolution = literal ? 0 : resolution};
  return true;
}

struct TowerContent {
  double energy = 0;
  std::vector<std::size_t> tracks;
};
using TowerKey = std::tuple<int, int, int>;  // ring, side, phi

// Scales the pt of the tower's tracks to the weighted mean of track and tower energy.
void rescale(std::vector<Track>& tracks, const std::vector<std::size_t>& members,
             double track_energy, double track_variance, double tower_energy, double tower_sigma) {
  const double wt = track_variance > 0 ? 1 / track_variance : 0;
  const double wc = tower_sigma > 0 ? 1 / (tower_sigma * tower_sigma) : 0;
  if (wt + wc <= 0) {
    return;
  }
  const double scale = (wt * track_energy + wc * tower_energy) / (wt + wc) / track_energy;
  for (const std::size_t i : members) {
    Candidate& c = tracks[i].candidate;
    c.p4 = from_pt_eta_phi_m(scale * c.p4.pt(), c.p4.eta(), c.p4.phi(), c.mass);
  }
}

// One calorimeter: fills towers, compares each with its tracks, appends neutral candidates.
void run_calorimeter(const Calorimeter& calorimeter, const std::vector<Deposit>& deposits,
                     std::vector<Track>& tracks, const RngKey& key,
                     std::vector<Candidate>& neutrals, std::vector<Tower>& towers) {
  std::map<TowerKey, TowerContent> contents;
  const auto content = [&](double eta, double phi) -> TowerContent* {
    const TowerId id = calorimeter.find(eta, phi);
    return id.ring < 0 ? nullptr : &contents[{id.ring, id.side, id.phi}];
  };
  for (const Deposit& d : deposits) {
    const double seen = calorimeter.fraction(d.pid) * d.energy;
    if (TowerContent* t = seen > 0 ? content(d.eta, d.phi) : nullptr) {
      t->energy += seen;
    }
  }
  for (std::size_t i = 0; i < tracks.size(); ++i) {
    if (calorimeter.fraction(tracks[i].pid) > 0) {
      if (TowerContent* t = content(tracks[i].eta, tracks[i].phi)) {
        t->tracks.push_back(i);
      }
    }
  }
  for (const auto& [id, tower] : contents) {
    const auto [ring, side, bin] = id;
    const double low = calorimeter.eta_low(ring);
    const TowerRing& edges = calorimeter.rings[static_cast<std::size_t>(ring)];
    const double centre = side * 0.5 * (low + edges.eta_high);
    // ring < 2^10, bin < 2^11: one block of words a tower
    const Philox4 words =
        key.block((static_cast<std::uint64_t>(ring) << 12U | static_cast<std::uint64_t>(bin)) * 2 +
                  (side > 0 ? 1 : 0));
    const double raw_sigma = calorimeter.resolution(tower.energy, centre);
    double energy = log_normal(tower.energy, raw_sigma, normal_pair(words.x, words.y).first);
    const double sigma = calorimeter.resolution(energy, centre);
    if (energy < calorimeter.energy_min || energy < calorimeter.significance_min * sigma) {
      energy = 0;
    }
    const double width = edges.phi_width_deg * std::numbers::pi / 180;
    const double eta = side * (low + (edges.eta_high - low) * (words.z * 0x1.0p-32));
    const double phi = -std::numbers::pi + width * (bin + words.w * 0x1.0p-32);
    if (energy > 0) {
      towers.push_back({eta, phi, energy});
    }
    double track_energy = 0, track_variance = 0;
    for (const std::size_t i : tower.tracks) {
      const double seen = calorimeter.fraction(tracks[i].pid) * tracks[i].candidate.p4.e;
      track_energy += seen;
      track_variance += std::pow(tracks[i].resolution * tracks[i].candidate.p4.e, 2);
    }
    const double excess = std::max(0.0, energy - track_energy);
    const double significance = excess / std::sqrt(track_variance + sigma * sigma);
    if (excess > calorimeter.energy_min && significance > calorimeter.significance_min) {
      neutrals.push_back({.p4 = from_pt_eta_phi_m(excess / std::cosh(eta), eta, phi, 0),
                          .kind = calorimeter.neutral});
    } else if (track_energy > 0) {
      rescale(tracks, tower.tracks, track_energy, track_variance, energy, sigma);
    }
  }
}

}  // namespace

DetectorOutput run_detector(const DetectorCard& card, const Event& event, const Rng& rng) {
  const Draws keys{rng.fork("tracks").key(), rng.fork("ecal").key(), rng.fork("hcal").key()};
  std::vector<Track> tracks;
  std::vector<Deposit> deposits;
  for (std::size_t i = 0; i < event.particles.size(); ++i) {
    const Particle& p = event.particles[i];
    if (p.status <= 0 || is_neutrino(p.pid)) {
      continue;
    }
    const int charge = pdg_charge(p.pid);
    const Trajectory at = propagate(p, charge, card.radius_mm, card.half_length_mm, card.bz_tesla);
    if (!at.inside) {
      continue;
    }
    deposits.push_back({p.pid, p.p4.e, at.eta(), at.phi()});
    Track track;
    if (charge != 0 && make_track(card, p, charge, at, keys.tracks, i, track)) {
      tracks.push_back(track);
    }
  }
  DetectorOutput out;
  std::vector<Candidate> neutrals;
  run_calorimeter(card.ecal, deposits, tracks, keys.ecal, neutrals, out.ecal);
  run_calorimeter(card.hcal, deposits, tracks, keys.hcal, neutrals, out.hcal);
  for (const Track& t : tracks) {
    if (t.candidate.p4.pt() > 0) {
      out.candidates.push_back(t.candidate);
    }
  }
  out.candidates.insert(out.candidates.end(), neutrals.begin(), neutrals.end());
  return out;
}

}  // namespace tessera
