// run.json: what made the results of a run directory.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "apps/run_config.h"

namespace tessera::apps {

/// Brings RUN/run.json up to date with the records of the finished stages: time and hash of the
/// weights of each, beside version, compiler, SIMD level, threads, seed and the hashes of
/// configuration and data manifests. Processes that work side by side in one run directory wait for
/// each other. A damaged file is named on stderr and made again.
void update_run_record(const RunConfig& config);

/// run.json, or an empty object where it is absent or damaged.
nlohmann::json read_run_record(const std::string& run);

/// Whether no file of data.jets and data.taus, as far as they are there, says that it is real data.
bool all_simulated(const RunConfig& config);

}  // namespace tessera::apps
