// What the report draws of a task model's answers: metrics, curves, histograms, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "train/finetune_job.h"

namespace tessera::apps {

/// {"metrics", "baseline", "n", "loss"} and, by task, "momentum" (bins of true pT, GeV) with
/// "response_histogram", "roc", or "confusion" over `classes`, the names of the outputs in order.
nlohmann::ordered_json evaluation_json(Task task, const Predictions& predictions,
                                       const std::vector<std::string>& classes);

/// {"edges", "counts"} of values in equal bins; what lies outside is not counted.
nlohmann::ordered_json histogram(const std::vector<double>& values, double low, double high,
                                 int bins);

}  // namespace tessera::apps
