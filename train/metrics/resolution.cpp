#include "train/metrics/resolution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"

namespace tessera {

Resolution resolution(Numbers predicted, Numbers truth, Numbers weights) {
  TESSERA_CHECK(
      predicted.size() == truth.size() && (weights.empty() || weights.size() == truth.size()),
      "resolution: expected {} predictions and as many weights, got {} and {}", truth.size(),
      predicted.size(), weights.size());
  check_ordered(predicted, "resolution");
  Resolution out;
  const double n = total_weight(weights, truth.size());
  if (truth.empty() || n <= 0) {
    return out;
  }
  const auto weight = [&](std::size_t i) { return weights.empty() ? 1.0 : weights[i]; };
  double mean = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    mean += weight(i) * truth[i];
  }
  mean /= n;
  std::vector<double> r;
  double sse = 0, sst = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    TESSERA_CHECK_KIND(ErrorKind::data, truth[i] > 0,
                       "resolution, row {}: expected a positive true value, got {}", i, truth[i]);
    const double difference = predicted[i] - truth[i];
    r.push_back(predicted[i] / truth[i]);
    out.mae += weight(i) * std::abs(difference) / n;
    out.mre += weight(i) * std::abs(difference) / truth[i] / n;
    sse += weight(i) * difference * difference;
    sst += weight(i) * (truth[i] - mean) * (truth[i] - mean);
  }
  RisingSample rising;
  for (const Scored& s : sorted_scored(r, weights)) {
    rising.add(s.score, s.weight);
  }
  out.n = effective_number(weights, truth.size());
  out.response = rising.quantile(0.5);
  const double iqr = rising.quantile(0.75) - rising.quantile(0.25);
  out.iqr_over_median = iqr / out.response;
  out.sigma_iqr = iqr / (1.349 * out.response);
  out.sigma_68 = (rising.quantile(0.84) - rising.quantile(0.16)) / (2 * out.response);
  for (std::size_t i = 0; i < r.size(); ++i) {
    out.tails += std::abs(r[i] - out.response) > 0.5 ? weight(i) : 0;
  }
  out.tails /= n;
  out.r2 = sst > 0 ? 1 - sse / sst : 0;
  return out;
}

BinnedResolution resolution_in_bins(Numbers predicted, Numbers truth, std::vector<double> edges,
                                    Numbers weights) {
  TESSERA_CHECK(predicted.size() == truth.size() && edges.size() >= 2 &&
                    std::is_sorted(edges.begin(), edges.end()),
                "resolution_in_bins: expected equal counts and rising edges, got {} and {} values, "
                "{} edges",
                predicted.size(), truth.size(), edges.size());
  BinnedResolution out{.edges = std::move(edges), .bins = {}};
  const std::size_t bins = out.edges.size() - 1;
  std::vector<std::vector<double>> p(bins), t(bins), w(bins);
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
      if (!weights.empty()) {
        w[bin].push_back(weights[i]);
      }
    }
  }
  for (std::size_t bin = 0; bin < bins; ++bin) {
    out.bins.push_back(resolution(p[bin], t[bin], w[bin]));
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
