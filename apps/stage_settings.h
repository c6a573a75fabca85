// settings.txt of a stage: what its result depends on. A stage is never mixed with other settings.
#pragma once

#include <filesystem>
#include <string>

#include "apps/run_config.h"

namespace tessera::apps {

/// Which datasets a stage reads.
struct DataUse {
  bool jets = false, taus = false;
};

/// What tokenizer and backbone are trained on, by data.unlabelled.
DataUse unlabelled_use(const RunConfig& config);
/// The one dataset of a task.
DataUse task_use(const std::string& task);

/// A line "data.jets holds HASH" for each dataset that is read: datasets are told apart by the
/// hashes of their files, not by where they are. Throws Error(missing | data) without a manifest.
std::string data_settings(const RunConfig& config, DataUse use);

/// Writes RUN/STAGE/settings.txt if the stage holds no work yet. Otherwise compares: throws Error(usage) naming
/// the first difference. Settings that an older version wrote, with paths of the datasets, are
/// compared with what run.json says of these paths. A damaged file is named on stderr and made
/// again from the stage's record, a checkpoint, or config.toml, whichever is whole.
void hold_settings(const RunConfig& config, const std::string& stage, const std::string& settings);

/// Throws Error(usage) where a dataset of `use` holds other jets than the earlier stage of this run
/// was made from.
void check_same_data(const RunConfig& config, const std::string& earlier, DataUse use);

}  // namespace tessera::apps
