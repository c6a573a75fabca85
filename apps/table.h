// table.csv and its print: every result beside its controls; label_multiplier.csv.
#pragma once

#include "apps/model_config.h"

namespace tessera::apps {

/// Collects RUN/eval/*.json of all studies and seeds into RUN/table.csv and prints it: baseline
/// rows first, mean and standard deviation over seeds. With several numbers of training jets also
/// RUN/label_multiplier.csv: N of the same model from scratch over N at equal metric.
void write_tables(const RunConfig& config, const std::vector<Study>& studies);

}  // namespace tessera::apps
