// Metrics of a regression: response and resolution.
#pragma once

#include "train/metrics/statistics.h"

namespace tessera {

struct Resolution {
  double n = 0;                ///< of jets; weighted: their effective number
  double response = 0;         ///< median of r = predicted / true
  double iqr_over_median = 0;  ///< (q75 - q25) / median: the tau paper's resolution
  double sigma_iqr = 0;        ///< (q75 - q25) / (1.349 median)
  double sigma_68 = 0;         ///< (q84 - q16) / (2 median)
  double tails = 0;            ///< fraction with |r - median| > 0.5
  double mae = 0;              ///< mean |predicted - true|
  double mre = 0;              ///< mean |predicted - true| / true
  double r2 = 0;               ///< 1 - SSE / SST; 0 where SST is 0
};
/// Means, fractions and quantiles of weighted jets; weights empty = 1. Throws Error(usage) on
/// different counts, Error(data) on a true value that is not positive. No jets, or weights that add
/// up to nothing above 0, give zeros.
Resolution resolution(Numbers predicted, Numbers truth, Numbers weights = {});

struct BinnedResolution {
  std::vector<double> edges;  // (bins + 1)
  std::vector<Resolution> bins;
  std::uint64_t underflow = 0, overflow = 0;  ///< counted, in no bin
};
/// In bins of the true value, lower edge inclusive.
BinnedResolution resolution_in_bins(Numbers predicted, Numbers truth, std::vector<double> edges,
                                    Numbers weights = {});
/// Bins of true pT in the tau tasks: 10, 20, ... 100, 125, 150, 175, 200 GeV.
std::vector<double> tau_pt_edges();

}  // namespace tessera
