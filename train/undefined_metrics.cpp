#include "train/undefined_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "train/metrics/statistics.h"

namespace tessera {
namespace {

/// Sum of the weights of the jets of one class, or their number where there are no weights.
double weight_in_class(const Predictions& p, std::int32_t target) {
  double sum = 0;
  for (std::size_t j = 0; j < p.target.size(); ++j) {
    sum += p.target[j] != target ? 0.0 : p.weights.empty() ? 1.0 : p.weights[j];
  }
  return sum;
}

/// What a sample lacks for tau-id, whose rates are shares of the weight of each class.
std::string lack_of_class(const Predictions& p) {
  for (const auto& [target, what] : {std::pair{1, "a tau"}, std::pair{0, "background"}}) {
    if (std::ranges::count(p.target, target) == 0) {
      return fmt::format("no jet is {}", what);
    }
    if (weight_in_class(p, target) <= 0) {
      return fmt::format("the weights of the jets that are {} add up to no more than 0", what);
    }
  }
  return "";
}

/// What a sample lacks for all metrics of a task; empty where it lacks nothing.
std::string lack_of(Task task, const Predictions& p) {
  if (p.size() == 0) {
    return "no jet takes part";
  }
  if (total_weight(p.weights, p.target.size()) <= 0) {
    return "the weights of the jets add up to no more than 0";
  }
  return task == Task::tau_id ? lack_of_class(p) : "";
}

}  // namespace

std::vector<std::string> metric_names(Task task) {
  switch (task) {
    case Task::tau_pt:
      return {"resolution", "response"};
    case Task::tau_id:
      return {"misid@80", "auc"};
    case Task::tau_dm:
    case Task::tag:
      break;
  }
  return {"accuracy"};
}

std::vector<UndefinedMetric> undefined_metrics(Task task, const Predictions& p) {
  const std::string lack = lack_of(task, p);
  std::vector<UndefinedMetric> undefined;
  for (const std::string& metric : metric_names(task)) {
    if (!lack.empty()) {
      undefined.push_back({metric, lack});
    } else if (metric == "resolution" && p.size() == 1) {
      undefined.push_back({metric, "a single jet has no spread"});
    }
  }
  return undefined;
}

}  // namespace tessera
