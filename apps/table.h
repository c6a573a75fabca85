// table.csv and its print: every result beside its controls.
#pragma once

#include <string>
#include <vector>

#include "apps/run_config.h"

namespace tessera::apps {

/// One fine-tuning: which network, from where, on what.
struct Study {
  std::string task, method, strategy;
  /// "TASK__METHOD__STRATEGY__seedK": its stage directory and evaluation file.
  [[nodiscard]] std::string name(std::int64_t seed) const;
};

/// Collects RUN/eval/*.json of all studies and seeds into RUN/table.csv and prints it: baseline
/// rows first, mean and standard deviation over seeds.
void write_table(const RunConfig& config, const std::vector<Study>& studies);

}  // namespace tessera::apps
