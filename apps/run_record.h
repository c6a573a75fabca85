// run.json: what made the results of a run directory.
#pragma once

#include <string>

#include "apps/run_config.h"

namespace tessera::apps {

/// Adds a finished stage, with its time and the hash of its weights, to RUN/run.json beside
/// version, compiler, SIMD level, threads, seed and the hashes of configuration and data manifests.
void record_stage(const RunConfig& config, const std::string& stage, double seconds,
                  const std::string& weights_hash);

/// Whether no file of data.jets and data.taus, as far as they are there, says that it is real data.
bool all_simulated(const RunConfig& config);

}  // namespace tessera::apps
