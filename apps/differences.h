// differences.csv: how much better one method is than another, with intervals.
#pragma once

#include "apps/model_config.h"
#include "train/metrics/paired.h"

namespace tessera::apps {

/// A study's answers for the test jets, kept so that methods can be compared jet by jet:
/// RUN/eval/NAME.safetensors.
std::string answers_path(const RunConfig& config, const std::string& study);
void write_answers(const std::string& path, const Predictions& predictions);
/// Throws Error(missing | data) where the file is absent or holds something else.
Predictions read_answers(const std::string& path);

/// Every pre-trained strategy minus every control of the same task and number of jets, into
/// RUN/differences.csv; those from scratch are printed.
void write_differences(const RunConfig& config, const std::vector<Study>& studies);

}  // namespace tessera::apps
