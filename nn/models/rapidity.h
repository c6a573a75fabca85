// The rapidity of a particle, defined for every energy and momentum along the beam.
#pragma once

#include <algorithm>
#include <cmath>

namespace tessera {

/// Rounding of stored values, or a generator, may put |pz| at the energy or above it. The gap
/// E - |pz| is then taken as this fraction of E + |pz|, so that the rapidity is large,
/// 1/2 ln 1e12 = 14, neither infinite nor NaN.
inline constexpr double kLeastRapidityGap = 1e-12;

/// Whether guarded_rapidity(e, pz) uses the least gap instead of the particle's own.
inline bool rapidity_is_floored(double e, double pz) {
  const double along = std::abs(pz);
  return !(e - along > kLeastRapidityGap * (e + along));
}

/// 1/2 ln ((E + pz) / (E - pz)) with the gap guarded; 0 for a particle without energy and pz.
inline double guarded_rapidity(double e, double pz) {
  const double along = std::abs(pz);
  const double gap = std::max(e - along, kLeastRapidityGap * (e + along));
  return gap > 0 ? std::copysign(0.5 * std::log((e + along) / gap), pz) : 0.0;
}

}  // namespace tessera
