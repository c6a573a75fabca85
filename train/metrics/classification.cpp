#include "train/metrics/classification.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"

namespace tessera {
namespace {

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
  const double background_number = effective_number(background_weights, background.size());
  if (r.limit) {
    r.rejection = background_number / 2.30;
  } else {
    const double e = r.background_efficiency;
    r.rejection = 1 / e;
    r.error = r.rejection * std::sqrt((1 - e) / (e * background_number));
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
  check_ordered(scores, "argmax_rows");
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
    right += predicted[i] == labels[i] ? (weights.empty() ? 1.0 : weights[i]) : 0;
  }
  const double total = total_weight(weights, labels.size());
  return total > 0 ? right / total : 0;
}

std::vector<double> confusion_matrix(std::span<const int> predicted, std::span<const int> labels,
                                     int classes, Numbers weights) {
  TESSERA_CHECK(predicted.size() == labels.size(), "confusion_matrix: expected {} rows, got {}",
                labels.size(), predicted.size());
  const auto c = static_cast<std::size_t>(classes);
  std::vector<double> matrix(c * c, 0.0);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    matrix.at(static_cast<std::size_t>(labels[i]) * c + static_cast<std::size_t>(predicted[i])) +=
        weights.empty() ? 1 : weights[i];
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

namespace {

/// Share of a sample's weight that passes a falling cut.
class Passing {
 public:
  Passing(Numbers scores, Numbers weights)
      : rising_(sorted_scored(scores, weights)), total_(total_weight(weights, scores.size())) {}
  double at(double cut) {
    for (; !rising_.empty() && rising_.back().score >= cut; rising_.pop_back()) {
      passed_ += rising_.back().weight;
    }
    return total_ > 0 ? passed_ / total_ : 0.0;
  }

 private:
  std::vector<Scored> rising_;
  double total_, passed_ = 0;
};

}  // namespace

std::vector<RocPoint> roc_curve(Numbers signal, Numbers background, Numbers signal_weights,
                                Numbers background_weights) {
  std::vector<double> cuts(signal.begin(), signal.end());
  cuts.insert(cuts.end(), background.begin(), background.end());
  std::sort(cuts.rbegin(), cuts.rend());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  Passing s(signal, signal_weights), b(background, background_weights);
  std::vector<RocPoint> curve;
  for (const double cut : cuts) {
    curve.push_back({cut, s.at(cut), b.at(cut)});
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

}  // namespace tessera
