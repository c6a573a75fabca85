// A four-momentum in double, for the simulation. GeV and radians.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "nn/models/rapidity.h"

namespace tessera {

/// (px, py, pz, E) in GeV.
struct FourVector {
  double px = 0, py = 0, pz = 0, e = 0;

  [[nodiscard]] double pt() const { return std::hypot(px, py); }
  [[nodiscard]] double p() const { return std::hypot(px, py, pz); }
  [[nodiscard]] double phi() const { return std::atan2(py, px); }
  /// Pseudorapidity asinh(pz / pt); +-1e5 along the beam, so that comparisons stay finite.
  [[nodiscard]] double eta() const {
    const double t = pt();
    return t > 0 ? std::asinh(pz / t) : std::copysign(1e5, pz);
  }
  /// 1/2 ln ((E + pz) / (E - pz)); guarded_rapidity() where |pz| reaches the energy. Apart from
  /// that the expression stays as it was, since files and reports repeat its bits.
  [[nodiscard]] double rapidity() const {
    return floored() ? guarded_rapidity(e, pz) : 0.5 * std::log((e + pz) / (e - pz));
  }
  /// Whether |pz| reaches the energy, so that rapidity() is floored.
  [[nodiscard]] bool floored() const { return rapidity_is_floored(e, pz); }
  /// sqrt(max(0, E^2 - p^2)).
  [[nodiscard]] double m() const {
    return std::sqrt(std::max(0.0, e * e - px * px - py * py - pz * pz));
  }
  FourVector& operator+=(const FourVector& o) {
    px += o.px, py += o.py, pz += o.pz, e += o.e;
    return *this;
  }
  bool operator==(const FourVector&) const = default;
};

inline FourVector from_pt_eta_phi_m(double pt, double eta, double phi, double m) {
  const double p = pt * std::cosh(eta);
  return {pt * std::cos(phi), pt * std::sin(phi), pt * std::sinh(eta), std::hypot(p, m)};
}

/// phi1 - phi2 in [-pi, pi].
inline double delta_phi(double phi1, double phi2) {
  return std::remainder(phi1 - phi2, 2 * std::numbers::pi);
}
inline double delta_r(const FourVector& a, const FourVector& b) {
  return std::hypot(a.eta() - b.eta(), delta_phi(a.phi(), b.phi()));
}

}  // namespace tessera
