#include "apps/evaluation.h"

#include <algorithm>
#include <cmath>

#include "train/metrics.h"
#include "train/undefined_metrics.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

// Whole numbers are written as such, sums of weights as they are.
ordered_json counts_of(const std::vector<double>& counts, bool weighted) {
  return weighted ? ordered_json(counts)
                  : ordered_json(std::vector<std::int64_t>(counts.begin(), counts.end()));
}

std::vector<double> predicted_pt(const Predictions& p) {
  std::vector<double> pt;
  for (std::size_t j = 0; j < p.pt_reco.size(); ++j) {
    pt.push_back(std::exp(static_cast<double>(p.outputs[j])) * p.pt_reco[j]);
  }
  return pt;
}

// Response and resolution of predicted transverse momenta (GeV) in bins of true pT.
ordered_json momentum(std::span<const double> predicted, const Predictions& p) {
  constexpr double kFewest =
      20;  // jets, by their effective number, for a quartile to mean anything
  const BinnedResolution binned =
      resolution_in_bins(predicted, p.pt_true, tau_pt_edges(), p.weights);
  ordered_json out;
  for (std::size_t b = 0; b < binned.bins.size(); ++b) {
    const Resolution& r = binned.bins[b];
    if (r.n < kFewest) {
      continue;
    }
    out["pt_low"].push_back(binned.edges[b]);
    out["pt_high"].push_back(binned.edges[b + 1]);
    out["response"].push_back(r.response);
    out["resolution"].push_back(r.iqr_over_median);
    // s.d. of a median and of an IQR over n draws of a normal with s.d. IQR / 1.349: 1.2533 and
    // 1.573 sigma / sqrt(n)
    const double sigma = r.sigma_iqr / std::sqrt(r.n);
    out["response_error"].push_back(1.2533 * sigma * r.response);
    out["resolution_error"].push_back(1.573 * sigma);
    out["n"].push_back(r.n);
  }
  return out;
}

ordered_json response_histogram(std::vector<double> response, const Predictions& p) {
  for (std::size_t j = 0; j < response.size(); ++j) {
    response[j] /= p.pt_true[j];
  }
  return histogram(response, 0.8, 1.2, 80, p.weights);
}

/// Bins, unless none has jets enough, and the histogram over all.
void add_momentum(ordered_json& out, const std::string& prefix, const std::vector<double>& pt,
                  const Predictions& p) {
  if (const ordered_json bins = momentum(pt, p); !bins.empty()) {
    out[prefix + "momentum"] = bins;
  }
  out[prefix + "response_histogram"] = response_histogram(pt, p);
}

ordered_json roc(const Predictions& p) {
  const TwoSamples s = identification_scores(p);
  const std::vector<RocPoint> points =
      roc_curve(s.signal, s.background, s.signal_weights, s.background_weights);
  const std::size_t step = std::max<std::size_t>(1, points.size() / 400);
  ordered_json out;
  for (std::size_t i = 0; i < points.size(); i += step) {
    out["signal_efficiency"].push_back(points[i].signal_efficiency);
    out["background_efficiency"].push_back(points[i].background_efficiency);
  }
  return out;
}

ordered_json confusion(const Predictions& p, const std::vector<std::string>& classes) {
  const auto c = static_cast<std::size_t>(p.columns);
  const std::vector<double> scores(p.outputs.begin(), p.outputs.end());
  const std::vector<int> labels(p.target.begin(), p.target.end());
  const auto matrix = confusion_matrix(argmax_rows(scores, static_cast<int>(c)), labels,
                                       static_cast<int>(c), p.weights);
  ordered_json counts = ordered_json::array();
  for (std::size_t row = 0; row < c; ++row) {
    const auto begin = matrix.begin() + static_cast<long>(row * c);
    counts.push_back(counts_of({begin, begin + static_cast<long>(c)}, !p.weights.empty()));
  }
  return {{"classes", classes}, {"counts", counts}};
}

}  // namespace

std::string shown(const std::optional<double>& value, int digits, const std::string& unit) {
  return value ? fmt::format("{:.{}f}{}", *value, digits, unit) : "not defined";
}

ordered_json defined_in(const std::vector<std::pair<std::string, std::optional<double>>>& values) {
  ordered_json out = ordered_json::object();
  for (const auto& [name, value] : values) {
    if (value) {
      out[name] = *value;
    }
  }
  return out;
}

ordered_json json_of(const std::vector<Metric>& metrics) {
  ordered_json out = ordered_json::object();
  for (const Metric& m : metrics) {
    out[m.name] = m.value;
  }
  return out;
}

ordered_json histogram(const std::vector<double>& values, double low, double high, int bins,
                       std::span<const double> weights) {
  std::vector<double> edges, counts(static_cast<std::size_t>(bins), 0.0), squares = counts;
  for (int i = 0; i <= bins; ++i) {
    edges.push_back(low + (high - low) * i / bins);
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double at = (values[i] - low) / (high - low) * bins;
    const double weight = weights.empty() ? 1.0 : weights[i];
    if (at >= 0 && at < bins) {
      counts[static_cast<std::size_t>(at)] += weight;
      squares[static_cast<std::size_t>(at)] += weight * weight;
    }
  }
  ordered_json out{{"edges", edges}, {"counts", counts_of(counts, !weights.empty())}};
  if (!weights.empty()) {
    out["squares"] = squares;
    out["total"] = total_weight(weights, values.size());
  }
  return out;
}

ordered_json evaluation_json(Task task, const Predictions& p,
                             const std::vector<std::string>& classes) {
  ordered_json out{{"metrics", json_of(evaluate(task, p))},
                   {"baseline", json_of(evaluate_baseline(task, p))}};
  const auto undefined = undefined_metrics(task, p);
  for (const auto& [metric, reason] : undefined) {
    out["undefined"][metric] = reason;
  }
  out["n"] = p.size();
  if (p.size() == 0) {
    return out;
  }
  out["loss"] = p.loss;
  if (!p.weights.empty()) {
    out["weights"] = {{"sum", total_weight(p.weights, p.target.size())},
                      {"effective_number", effective_number(p.weights, p.target.size())}};
  }
  if (task == Task::tau_pt) {
    add_momentum(out, "", predicted_pt(p), p);
    add_momentum(out, "baseline_", p.pt_reco, p);
  }
  if (task == Task::tau_id && undefined.empty()) out["roc"] = roc(p);
  if (task == Task::tau_dm || task == Task::tag) out["confusion"] = confusion(p, classes);
  return out;
}

}  // namespace tessera::apps
