// Jet substructure: soft drop and N-subjettiness.
#pragma once

#include <span>

#include "train/four_vector.h"

namespace tessera {

/// The groomed jet of soft drop: Cambridge/Aachen declustering, dropping the softer branch until
/// min(pt1, pt2) / (pt1 + pt2) > zcut (dR / R0)^beta. One particle is returned as it is.
/// Larkoski, Marzani, Soyez, Thaler, arXiv:1402.2657, eq. 1.1.
struct SoftDropConfig {
  double zcut = 0.1, beta = 0, r0 = 0.8;  ///< as JetClass
};
FourVector soft_drop(std::span<const FourVector> constituents, const SoftDropConfig& config = {});

/// tau_N = sum_i pt_i min_k dR(i, axis_k) / sum_i pt_i R0 with beta = 1 and exclusive-kt
/// winner-take-all axes; 0 for N or fewer constituents. Thaler, Van Tilburg, arXiv:1011.2268,
/// eq. 2.1.
double n_subjettiness(std::span<const FourVector> constituents, int n, double r0 = 0.8);

}  // namespace tessera
