#include "train/undefined_metrics.h"

#include <algorithm>

namespace tessera {
namespace {

/// What a sample lacks for all metrics of a task; empty where it lacks nothing.
std::string lack_of(Task task, const Predictions& p) {
  if (p.size() == 0) {
    return "no jet takes part";
  }
  if (task == Task::tau_id) {
    const auto taus = std::ranges::count(p.target, 1);
    return taus == 0 ? "no jet is a tau" : taus == p.size() ? "no jet is background" : "";
  }
  return "";
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
