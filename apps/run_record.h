// run.json: what made the results of a run directory.
#pragma once

#include <string>

#include "apps/run_config.h"

namespace tessera::apps {

/// Adds a finished stage, with its time and the hash of its weights, to RUN/run.json beside
/// version, compiler, SIMD level, threads, seed and the hashes of configuration and data manifests.
void record_stage(const RunConfig& config, const std::string& stage, double seconds,
                  const std::string& weights_hash);

}  // namespace tessera::apps
