// What the report draws of a task model's answers: metrics, curves, histograms, as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "train/finetune_job.h"

namespace tessera::apps {

/// {"metrics", "baseline", "n", "loss"}, for weighted jets "weights", and, by task, "momentum"
/// (bins of true pT, GeV) with "response_histogram", "roc", or "confusion" over `classes`, the
/// names of the outputs in order.
/// Leaves out each metric that the jets do not define; "undefined" then holds its reason.
nlohmann::ordered_json evaluation_json(Task task, const Predictions& predictions,
                                       const std::vector<std::string>& classes);

/// A value with its digits and unit, or "not defined".
std::string shown(const std::optional<double>& value, int digits, const std::string& unit = "");
/// {NAME: VALUE} of those that have a value.
nlohmann::ordered_json defined_in(
    const std::vector<std::pair<std::string, std::optional<double>>>& values);
/// {NAME: VALUE}; an object where there is none, too.
nlohmann::ordered_json json_of(const std::vector<Metric>& metrics);

/// {"edges", "counts"} of values in equal bins; what lies outside is not counted. Of weighted
/// values the counts are sums of weights, with "squares", the sums of their squares, and "total",
/// the sum over all values.
nlohmann::ordered_json histogram(const std::vector<double>& values, double low, double high,
                                 int bins, std::span<const double> weights = {});

}  // namespace tessera::apps
