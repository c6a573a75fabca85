#include "train/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "core/rng.h"

namespace tessera {
namespace {

std::vector<double> sorted_copy(Numbers values) {
  std::vector<double> s(values.begin(), values.end());
  std::sort(s.begin(), s.end());
  return s;
}

double weight_at(Numbers weights, std::size_t i) { return weights.empty() ? 1.0 : weights[i]; }

double total_weight(Numbers weights, std::size_t n) {
  return weights.empty() ? static_cast<double>(n)
                         : std::accumulate(weights.begin(), weights.end(), 0.0);
}

void check_weights(Numbers values, Numbers weights) {
  TESSERA_CHECK(weights.empty() || weights.size() == values.size(),
                "metrics: expected {} weights, got {}", values.size(), weights.size());
}

// One scored event of either sample.
struct Scored {
  double score, weight;
};

std::vector<Scored> sorted_scored(Numbers scores, Numbers weights) {
  check_weights(scores, weights);
  std::vector<Scored> list;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    list.push_back({scores[i], weight_at(weights, i)});
  }
  std::sort(list.begin(), list.end(),
            [](const Scored& a, const Scored& b) { return a.score < b.score; });
  return list;
}

// The largest score at which the weight of all scores >= it reaches `wanted`.
double cut_for(const std::vector<Scored>& rising, double wanted) {
  const double enough = wanted * (1 - 1e-12);  // 0.55 * 100 is above 55 in binary
  double sum = 0;
  for (auto it = rising.rbegin(); it != rising.rend(); ++it) {
    sum += it->weight;
    if (it->weight > 0 && sum >= enough) {
      return it->score;
    }
  }
  return rising.front().score;
}

double weight_from(const std::vector<Scored>& list, double cut) {
  double sum = 0;
  for (const Scored& s : list) {
    sum += s.score >= cut ? s.weight : 0;
  }
  return sum;
}

}  // namespace

double sorted_quantile(Numbers sorted, double q) {
  TESSERA_CHECK(!sorted.empty() && q >= 0 && q <= 1,
                "quantile: expected a sample and q in 0 to 1, got {} values and {}", sorted.size(),
                q);
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double t = position - static_cast<double>(below);
  return sorted[below] + t * (sorted[above] - sorted[below]);
}

double quantile(Numbers values, double q) { return sorted_quantile(sorted_copy(values), q); }

Rejection rejection_at(Numbers signal, Numbers background, double efficiency,
                       Numbers signal_weights, Numbers background_weights) {
  TESSERA_CHECK(!signal.empty() && !background.empty() && efficiency > 0 && efficiency <= 1,
                "rejection: expected both classes and an efficiency in (0, 1], got {}, {} and {}",
                signal.size(), background.size(), efficiency);
  const auto s = sorted_scored(signal, signal_weights);
  const auto b = sorted_scored(background, background_weights);
  const double signal_total = total_weight(signal_weights, signal.size());
  const double background_total = total_weight(background_weights, background.size());
  Rejection r;
  r.cut = cut_for(s, efficiency * signal_total);
  r.signal_efficiency = weight_from(s, r.cut) / signal_total;
  r.background_efficiency = weight_from(b, r.cut) / background_total;
  const auto at_cut = std::count(signal.begin(), signal.end(), r.cut);
  r.tied = static_cast<double>(at_cut - 1) / static_cast<double>(signal.size());
  r.limit = r.background_efficiency <= 0;
  if (r.limit) {
    r.rejection = background_total / 2.30;
  } else {
    const double e = r.background_efficiency;
    r.rejection = 1 / e;
    r.error = r.rejection * std::sqrt((1 - e) / (e * background_total));
  }
  return r;
}

double auc(Numbers signal, Numbers background, Numbers signal_weights, Numbers background_weights) {
  TESSERA_CHECK(!signal.empty() && !background.empty(),
                "auc: expected both classes, got {} signal and {} background events", signal.size(),
                background.size());
  const auto s = sorted_scored(signal, signal_weights);
  const auto b = sorted_scored(background, background_weights);
  double below = 0, sum = 0;
  std::size_t j = 0;
  for (std::size_t i = 0; i < s.size();) {
    const double score = s[i].score;
    double here = 0, tied = 0;
    for (; i < s.size() && s[i].score == score; ++i) {
      here += s[i].weight;
    }
    for (; j < b.size() && b[j].score < score; ++j) {
      below += b[j].weight;
    }
    for (; j < b.size() && b[j].score == score; ++j) {
      tied += b[j].weight;
    }
    sum += here * (below + tied / 2);
    below += tied;
  }
  return sum /
         (total_weight(signal_weights, s.size()) * total_weight(background_weights, b.size()));
}

double auc_one_vs_one(Numbers scores, std::span<const int> labels, int classes) {
  const auto c = static_cast<std::size_t>(classes);
  TESSERA_CHECK(scores.size() == labels.size() * c, "auc_one_vs_one: expected {} scores, got {}",
                labels.size() * c, scores.size());
  std::vector<std::vector<std::size_t>> events(c);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    events.at(static_cast<std::size_t>(labels[i])).push_back(i);
  }
  const auto column = [&](std::size_t of_class, std::size_t k) {
    std::vector<double> values;
    for (const std::size_t i : events[of_class]) {
      values.push_back(scores[i * c + k]);
    }
    return values;
  };
  double sum = 0;
  int pairs = 0;
  for (std::size_t i = 0; i < c; ++i) {
    for (std::size_t j = i + 1; j < c; ++j) {
      if (!events[i].empty() && !events[j].empty()) {
        sum += (auc(column(i, i), column(j, i)) + auc(column(j, j), column(i, j))) / 2;
        ++pairs;
      }
    }
  }
  return pairs > 0 ? sum / pairs : 0;
}

std::vector<int> argmax_rows(Numbers scores, int classes) {
  TESSERA_CHECK(classes > 0 && scores.size() % static_cast<std::size_t>(classes) == 0,
                "argmax_rows: expected rows of {}, got {} values", classes, scores.size());
  std::vector<int> best;
  for (auto row = scores.begin(); row != scores.end(); row += classes) {
    best.push_back(static_cast<int>(std::max_element(row, row + classes) - row));
  }
  return best;
}

double accuracy(std::span<const int> predicted, std::span<const int> labels, Numbers weights) {
  TESSERA_CHECK(predicted.size() == labels.size(), "accuracy: expected {} predictions, got {}",
                labels.size(), predicted.size());
  double right = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    right += predicted[i] == labels[i] ? weight_at(weights, i) : 0;
  }
  const double total = total_weight(weights, labels.size());
  return total > 0 ? right / total : 0;
}

std::vector<double> confusion_matrix(std::span<const int> predicted, std::span<const int> labels,
                                     int classes) {
  TESSERA_CHECK(predicted.size() == labels.size(), "confusion_matrix: expected {} rows, got {}",
                labels.size(), predicted.size());
  const auto c = static_cast<std::size_t>(classes);
  std::vector<double> matrix(c * c, 0.0);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    matrix.at(static_cast<std::size_t>(labels[i]) * c + static_cast<std::size_t>(predicted[i])) +=
        1;
  }
  return matrix;
}

std::vector<double> row_normalised(std::span<const double> matrix, int classes) {
  std::vector<double> result(matrix.begin(), matrix.end());
  for (auto row = result.begin(); row != result.end(); row += classes) {
    const double sum = std::accumulate(row, row + classes, 0.0);
    std::transform(row, row + classes, row, [&](double x) { return sum > 0 ? x / sum : 0.0; });
  }
  return result;
}

ClassScores class_scores(std::span<const double> confusion, int classes) {
  const auto c = static_cast<std::size_t>(classes);
  ClassScores s;
  for (std::size_t k = 0; k < c; ++k) {
    double row = 0, column = 0;
    for (std::size_t i = 0; i < c; ++i) {
      row += confusion[k * c + i];
      column += confusion[i * c + k];
    }
    const double hit = confusion[k * c + k];
    s.precision.push_back(column > 0 ? hit / column : 0);
    s.recall.push_back(row > 0 ? hit / row : 0);
    s.f1.push_back(row + column > 0 ? 2 * hit / (row + column) : 0);
    s.macro_precision += s.precision.back() / classes;
    s.macro_recall += s.recall.back() / classes;
    s.macro_f1 += s.f1.back() / classes;
  }
  return s;
}

std::vector<RocPoint> roc_curve(Numbers signal, Numbers background) {
  const auto s = sorted_copy(signal), b = sorted_copy(background);
  std::vector<double> cuts = s;
  cuts.insert(cuts.end(), b.begin(), b.end());
  std::sort(cuts.rbegin(), cuts.rend());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  const auto fraction = [](const std::vector<double>& sorted, double cut) {
    const auto passing = sorted.end() - std::lower_bound(sorted.begin(), sorted.end(), cut);
    return sorted.empty() ? 0.0 : static_cast<double>(passing) / static_cast<double>(sorted.size());
  };
  std::vector<RocPoint> curve;
  for (const double cut : cuts) {
    curve.push_back({cut, fraction(s, cut), fraction(b, cut)});
  }
  return curve;
}

double significance_improvement(Numbers signal, Numbers background) {
  const double least = 25.0 / static_cast<double>(std::max<std::size_t>(background.size(), 1));
  double best = 0;
  for (const RocPoint& p : roc_curve(signal, background)) {
    if (p.background_efficiency >= least * (1 - 1e-12) && p.background_efficiency > 0) {
      best = std::max(best, p.signal_efficiency / std::sqrt(p.background_efficiency));
    }
  }
  return best;
}

double calibration_error(Numbers probabilities, std::span<const int> labels, int classes) {
  constexpr std::size_t kBins = 15;
  const std::vector<int> best = argmax_rows(probabilities, classes);
  double count[kBins] = {}, hits[kBins] = {}, confidence[kBins] = {};
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double p =
        probabilities[i * static_cast<std::size_t>(classes) + static_cast<std::size_t>(best[i])];
    const std::size_t bin = std::min(static_cast<std::size_t>(p * kBins), kBins - 1);
    count[bin] += 1;
    hits[bin] += best[i] == labels[i] ? 1 : 0;
    confidence[bin] += p;
  }
  double error = 0;
  for (std::size_t bin = 0; bin < kBins; ++bin) {
    error += std::abs(hits[bin] - confidence[bin]);
  }
  return labels.empty() ? 0 : error / static_cast<double>(labels.size());
}

WorkingPoint working_point(Numbers signal, double signal_total, Numbers background,
                           double background_total, double efficiency) {
  TESSERA_CHECK(
      !signal.empty() && signal_total > 0 && background_total > 0,
      "working_point: expected scores and positive denominators, got {} scores, {} and {}",
      signal.size(), signal_total, background_total);
  const double reachable = static_cast<double>(signal.size()) / signal_total;
  TESSERA_CHECK(
      efficiency <= reachable * (1 + 1e-12),
      "working_point: expected an efficiency of at most {} (reconstructed fraction), got {}",
      reachable, efficiency);
  const auto s = sorted_scored(signal, {}), b = sorted_scored(background, {});
  WorkingPoint w;
  w.cut = cut_for(s, efficiency * signal_total);
  w.efficiency = weight_from(s, w.cut) / signal_total;
  w.misidentification = weight_from(b, w.cut) / background_total;
  return w;
}

Resolution resolution(Numbers predicted, Numbers truth) {
  TESSERA_CHECK(predicted.size() == truth.size(), "resolution: expected {} predictions, got {}",
                truth.size(), predicted.size());
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

CodeUse code_use(std::span<const std::uint64_t> counts) {
  CodeUse use;
  use.tokens = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  use.dead = static_cast<std::uint64_t>(std::count(counts.begin(), counts.end(), 0U));
  use.usage =
      counts.empty() ? 0 : 1 - static_cast<double>(use.dead) / static_cast<double>(counts.size());
  double entropy = 0;
  for (const std::uint64_t n : counts) {
    const double p = n > 0 ? static_cast<double>(n) / static_cast<double>(use.tokens) : 1;
    entropy -= p * std::log(p);
  }
  use.perplexity = use.tokens > 0 ? std::exp(entropy) : 0;
  return use;
}

double poisson_weight(std::uint64_t seed, std::uint32_t replica, std::uint64_t event) {
  // Inverse of the cumulated Poisson(1) distribution at a 32-bit uniform in (0, 1).
  const double u = (static_cast<double>(RngKey{seed, replica}.word(event)) + 0.5) * 0x1.0p-32;
  double probability = std::exp(-1.0), sum = probability;
  int k = 0;
  while (u > sum && k < 16) {
    probability /= ++k;
    sum += probability;
  }
  return k;
}

std::vector<double> poisson_weights(std::uint64_t seed, std::uint32_t replica, std::uint64_t n,
                                    std::uint64_t first) {
  std::vector<double> weights(n);
  for (std::uint64_t e = 0; e < n; ++e) {
    weights[e] = poisson_weight(seed, replica, first + e);
  }
  return weights;
}

double bootstrap_error(std::uint64_t n, std::uint64_t seed,
                       const std::function<double(Numbers weights)>& statistic,
                       std::uint32_t replicas) {
  std::vector<double> values;
  for (std::uint32_t b = 0; b < replicas; ++b) {
    values.push_back(statistic(poisson_weights(seed, b, n)));
  }
  return mean_sd(values).sd;
}

double bootstrap_error_resampled(Numbers values, std::uint64_t seed,
                                 const std::function<double(Numbers sample)>& statistic,
                                 std::uint32_t replicas) {
  std::vector<double> results, sample;
  for (std::uint32_t b = 0; b < replicas; ++b) {
    sample.clear();
    for (std::size_t e = 0; e < values.size(); ++e) {
      sample.insert(sample.end(), static_cast<std::size_t>(poisson_weight(seed, b, e)), values[e]);
    }
    if (!sample.empty()) {
      results.push_back(statistic(sample));
    }
  }
  return mean_sd(results).sd;
}

MeanSd mean_sd(Numbers values) {
  MeanSd out;
  const double n = static_cast<double>(values.size());
  if (values.empty()) {
    return out;
  }
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double sum = 0;
  for (const double v : values) {
    sum += (v - out.mean) * (v - out.mean);
  }
  out.sd = values.size() > 1 ? std::sqrt(sum / (n - 1)) : 0;
  return out;
}

}  // namespace tessera
