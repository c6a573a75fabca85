// One function per verb. Each parses nothing: main.cpp hands it a resolved configuration.
#pragma once

#include <string>
#include <vector>

#include "apps/programs.h"
#include "apps/run_config.h"
#include "core/device.h"

namespace tessera::apps {

/// Published checkpoints, .ckpt of PyTorch or .safetensors with the same names.
struct ImportArguments {
  std::string tokenizer, backbone, classifier, part;
  std::string weaver;                ///< version of weaver-core that trained `part`
  std::vector<std::string> classes;  ///< of a classifier, in the order of its outputs
  Helpers helpers;
};

/// Options that are flags, not configuration.
struct Options {
  bool json = false;
  bool quiet = false;
  bool dry_run = false;
  std::string resume = "auto";  ///< auto or never
  std::string from;             ///< run directory whose pre-trained backbone is used
  Device device = kCpu;         ///< where the verb computes
  ImportArguments import;
};

void train_tokenizer_verb(const RunConfig& config, const Options& options);
void pretrain_verb(const RunConfig& config, const Options& options);
void import_verb(const RunConfig& config, const Options& options);
void finetune_verb(const RunConfig& config, const Options& options);
void generate_verb(const RunConfig& config, const Options& options);
void dry_run(const RunConfig& config, const std::string& verb);

struct InspectArguments {
  std::string what;  ///< preset, model, checkpoint or dataset directory
  bool json = false;
};
void inspect_verb(const InspectArguments& arguments);
void doctor_verb(bool json);

struct ModelArguments {
  std::string model, data, output;
  std::vector<std::string> splits;  ///< of a dataset directory; none = test
  std::string against;              ///< evaluate: another model, compared jet by jet
  std::uint64_t seed = 1;           ///< evaluate: of the bootstrap
  std::string precision = "f32";
  std::string weights = "use";  ///< evaluate: use or ignore
  bool json = false;
  Device device = kCpu;                ///< where the model computes
  std::vector<std::string> observers;  ///< predict: columns of the data beside the answers
  bool ignore_labels = false;          ///< predict: class labels are not read
  Helpers helpers;                     ///< predict: write Parquet and ROOT
};
/// Metrics of a stored task model on a dataset split, with bootstrap errors, and their paired
/// differences from another model's.
void evaluate_verb(const ModelArguments& arguments);
/// Its answers to every jet, without truth.
void predict_verb(const ModelArguments& arguments);
/// Checks every hash of a run, model, checkpoint or dataset directory.
void verify_verb(const std::string& directory);
/// Draws RUN/report.html with apps/python/plot.py.
void report_verb(const std::string& run, const Helpers& helpers);

}  // namespace tessera::apps
