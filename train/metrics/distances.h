// Distances between two samples of one quantity: generated or decoded jets against true ones.
#pragma once

#include "train/metrics/statistics.h"

namespace tessera {

/// Wasserstein-1: integral of |F - G|; sizes and weights may differ.
double w1(Numbers a, Numbers b, Numbers a_weights = {}, Numbers b_weights = {});
/// KL(truth || generated) over 29 bins between truth quantiles 0.001 .. 0.999 plus under- and
/// overflow, with bin masses (n + 0.5) / (N + 0.5 k).
double kld(Numbers truth, Numbers generated);
/// The public OmniJet-alpha recipe: densities + 1e-8 in the same 29 bins, renormalised without bin
/// widths. For comparison.
double kld_omnijet(Numbers truth, Numbers generated);

}  // namespace tessera
