// Features of pairs of particles, and the way from pairs to the bias of an attention layer.
#pragma once

#include "core/segments.h"

namespace tessera {

inline constexpr int kPairFeatures = 4;  ///< ln kT, ln z, ln dR, ln m^2

/// Features of the pairs i >= j of each jet, the diagonal included, (P, 4), P = sum n (n + 1) / 2;
/// i-th row of the triangle after the (i - 1)-th. four_momenta: (T, 4) px, py, pz, E in GeV. With
/// rapidities y and pt_min = min(pt_i, pt_j):
///   dR = hypot(y_i - y_j, phi_i - phi_j); kT = pt_min dR; z = pt_min / (pt_i + pt_j);
///   m^2 = (E_i + E_j)^2 - |p_i + p_j|^2;
/// each at least 1e-8 before the logarithm. Computed in double; no gradient. ParT, Qu, Li, Qian
/// 2022 (2202.03772), eq. 3.
Tensor pair_features(const Tensor& four_momenta, const Segments& segments);

/// For each jet its (n, n) block, jets one after another: the row of pair_features() of (i, j) and
/// of (j, i). i32 (sum n^2).
Tensor pair_index(const Segments& segments);

}  // namespace tessera
