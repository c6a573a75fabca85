// One function per verb. Each parses nothing: main.cpp hands it a resolved configuration.
#pragma once

#include <string>

#include "apps/run_config.h"
#include "train/jobs.h"

namespace tessera::apps {

/// Options that are flags, not configuration.
struct Options {
  bool json = false;
  bool quiet = false;
  bool dry_run = false;
};

void train_tokenizer_verb(const RunConfig& config, const Options& options);
void pretrain_verb(const RunConfig& config, const Options& options);
void finetune_verb(const RunConfig& config, const Options& options);
void inspect_verb(const std::string& preset, const Options& options);
void doctor_verb(const Options& options);

// Shared by the verbs.

/// Progress on stderr: redrawn on a terminal, a line per report otherwise; metrics appended to
/// `log_path` as JSON lines.
Observer console_observer(const Options& options, const std::string& log_path);
FeatureConfig feature_config(const RunConfig& config);
UnlabelledData unlabelled_data(const RunConfig& config);
TokenizerConfig tokenizer_config(const RunConfig& config);
BackboneConfig backbone_config(const RunConfig& config);
/// Writes through a temporary name and a rename.
void write_text(const std::string& path, const std::string& text);

}  // namespace tessera::apps
