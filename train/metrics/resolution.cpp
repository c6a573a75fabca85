#include "train/metrics/resolution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"

namespace tessera {

Resolution resolution(Numbers predicted, Numbers truth) {
  TESSERA_CHECK(predicted.size() == truth.size(), "resolution: expected {} predictions, got {}",
                truth.size(), predicted.size());
  check_ordered(predicted, "resolution");
  Resolution out;
  if (truth.empty()) {
    return out;
  }
  const double n = static_cast<double>(truth.size());
  const double mean = std::accumulate(truth.begin(), truth.end(), 0.0) / n;
  std::vector<double> r;
  double sse = 0, sst = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    TESSERA_CHECK_KIND(ErrorKind::data, truth[i] > 0,
                       "resolution, row {}: expected a positive true value, got {}", i, truth[i]);
    const double difference = predicted[i] - truth[i];
    r.push_back(predicted[i] / truth[i]);
    out.mae += std::abs(difference) / n;
    out.mre += std::abs(difference) / truth[i] / n;
    sse += difference * difference;
    sst += (truth[i] - mean) * (truth[i] - mean);
  }
  std::sort(r.begin(), r.end());
  out.n = n;
  out.response = sorted_quantile(r, 0.5);
  const double iqr = sorted_quantile(r, 0.75) - sorted_quantile(r, 0.25);
  out.iqr_over_median = iqr / out.response;
  out.sigma_iqr = iqr / (1.349 * out.response);
  out.sigma_68 = (sorted_quantile(r, 0.84) - sorted_quantile(r, 0.16)) / (2 * out.response);
  out.tails = static_cast<double>(std::count_if(
                  r.begin(), r.end(), [&](double x) { return std::abs(x - out.response) > 0.5; })) /
              n;
  out.r2 = sst > 0 ? 1 - sse / sst : 0;
  return out;
}

BinnedResolution resolution_in_bins(Numbers predicted, Numbers truth, std::vector<double> edges) {
  TESSERA_CHECK(predicted.size() == truth.size() && edges.size() >= 2 &&
                    std::is_sorted(edges.begin(), edges.end()),
                "resolution_in_bins: expected equal counts and rising edges, got {} and {} values, "
                "{} edges",
                predicted.size(), truth.size(), edges.size());
  BinnedResolution out{.edges = std::move(edges), .bins = {}};
  const std::size_t bins = out.edges.size() - 1;
  std::vector<std::vector<double>> p(bins), t(bins);
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const auto above = std::upper_bound(out.edges.begin(), out.edges.end(), truth[i]);
    if (above == out.edges.begin()) {
      ++out.underflow;
    } else if (above == out.edges.end()) {
      ++out.overflow;
    } else {
      const auto bin = static_cast<std::size_t>(above - out.edges.begin()) - 1;
      p[bin].push_back(predicted[i]);
      t[bin].push_back(truth[i]);
    }
  }
  for (std::size_t bin = 0; bin < bins; ++bin) {
    out.bins.push_back(resolution(p[bin], t[bin]));
  }
  return out;
}

std::vector<double> tau_pt_edges() {
  std::vector<double> edges;
  for (int pt = 10; pt <= 100; pt += 10) {
    edges.push_back(pt);
  }
  edges.insert(edges.end(), {125, 150, 175, 200});
  return edges;
}

}  // namespace tessera
