// What the report draws of a task model's answers: metrics, curves, histograms, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "train/finetune_job.h"

namespace tessera::apps {

/// {"metrics", "baseline", "n", "loss"}, for weighted jets "weights", and, by task, "momentum"
/// (bins of true pT, GeV) with "response_histogram", "roc", or "confusion" over `classes`, the
/// names of the outputs in order.
nlohmann::ordered_json evaluation_json(Task task, const Predictions& predictions,
                                       const std::vector<std::string>& classes);

/// {"edges", "counts"} of values in equal bins; what lies outside is not counted. Of weighted
/// values the counts are sums of weights, with "squares", the sums of their squares, and "total",
/// the sum over all values.
nlohmann::ordered_json histogram(const std::vector<double>& values, double low, double high,
                                 int bins, std::span<const double> weights = {});

}  // namespace tessera::apps
