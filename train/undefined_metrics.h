// Metrics that a sample does not define: said with the reason, never a number.
#pragma once

#include <string>
#include <vector>

#include "train/tasks.h"

namespace tessera {

/// A metric without a value, and what the sample lacks, as "no jet takes part".
struct UndefinedMetric {
  std::string name, reason;
  bool operator==(const UndefinedMetric&) const = default;
};

/// The headline metrics of a task, in the order of evaluate().
std::vector<std::string> metric_names(Task task);

/// Those that have no value on these jets: all where there is no jet; efficiency and area of tau-id
/// without both classes; the resolution of tau-pt on a single jet.
std::vector<UndefinedMetric> undefined_metrics(Task task, const Predictions& predictions);

}  // namespace tessera
