#include "train/metrics/distances.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"

namespace tessera {

double w1(Numbers a, Numbers b, Numbers a_weights, Numbers b_weights) {
  TESSERA_CHECK(!a.empty() && !b.empty(), "w1: expected two samples, got {} and {} values",
                a.size(), b.size());
  const auto sa = sorted_scored(a, a_weights), sb = sorted_scored(b, b_weights);
  const double wa = total_weight(a_weights, a.size()), wb = total_weight(b_weights, b.size());
  std::size_t i = 0, j = 0;
  double f = 0, g = 0, sum = 0;
  double x = std::min(sa[0].score, sb[0].score);
  while (i < sa.size() || j < sb.size()) {
    const bool from_a = j == sb.size() || (i < sa.size() && sa[i].score <= sb[j].score);
    const double next = from_a ? sa[i].score : sb[j].score;
    sum += std::abs(f / wa - g / wb) * (next - x);
    x = next;
    if (from_a) {
      f += sa[i++].weight;
    } else {
      g += sb[j++].weight;
    }
  }
  return sum;
}

namespace {

constexpr std::size_t kKldEdges = 30;

std::vector<double> truth_edges(Numbers truth) {
  const auto sorted = sorted_copy(truth);
  std::vector<double> edges;
  for (std::size_t i = 0; i < kKldEdges; ++i) {
    const double q = 0.001 + 0.998 * static_cast<double>(i) / static_cast<double>(kKldEdges - 1);
    edges.push_back(sorted_quantile(sorted, q));
  }
  return edges;
}

// Counts below, in the bins [e_i, e_i+1) (the last one closed, as numpy's histogram), and above.
std::vector<double> histogram(Numbers values, const std::vector<double>& edges) {
  check_ordered(values, "histogram");
  std::vector<double> counts(edges.size() + 1, 0.0);
  for (const double v : values) {
    auto bin =
        static_cast<std::size_t>(std::upper_bound(edges.begin(), edges.end(), v) - edges.begin());
    if (v == edges.back()) {
      bin = edges.size() - 1;
    }
    counts[bin] += 1;
  }
  return counts;
}

double divergence(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    sum += p[i] * std::log(p[i] / q[i]);
  }
  return sum;
}

std::vector<double> omnijet_density(Numbers values, const std::vector<double>& edges) {
  std::vector<double> counts = histogram(values, edges);
  const std::vector<double> inner(counts.begin() + 1, counts.end() - 1);  // (29)
  const double total = std::accumulate(inner.begin(), inner.end(), 0.0);
  std::vector<double> density;
  for (std::size_t i = 0; i < inner.size(); ++i) {
    const double width = edges[i + 1] - edges[i];
    density.push_back((total > 0 && width > 0 ? inner[i] / (total * width) : 0.0) + 1e-8);
  }
  const double sum = std::accumulate(density.begin(), density.end(), 0.0);
  for (double& d : density) {
    d /= sum;
  }
  return density;
}

}  // namespace

double kld(Numbers truth, Numbers generated) {
  TESSERA_CHECK(!truth.empty() && !generated.empty(), "kld: expected two samples, got {} and {}",
                truth.size(), generated.size());
  const auto edges = truth_edges(truth);
  const auto masses = [&](Numbers values) {
    std::vector<double> m = histogram(values, edges);
    const double k = static_cast<double>(m.size());
    for (double& x : m) {
      x = (x + 0.5) / (static_cast<double>(values.size()) + 0.5 * k);
    }
    return m;
  };
  return divergence(masses(truth), masses(generated));
}

double kld_omnijet(Numbers truth, Numbers generated) {
  TESSERA_CHECK(!truth.empty() && !generated.empty(),
                "kld_omnijet: expected two samples, got {} and {}", truth.size(), generated.size());
  const auto edges = truth_edges(truth);
  return divergence(omnijet_density(truth, edges), omnijet_density(generated, edges));
}

}  // namespace tessera
