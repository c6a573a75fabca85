// Sizes and settings of the trainings, out of the configuration.
#pragma once

#include "apps/run_config.h"
#include "train/finetune_job.h"
#include "train/gpt_pretrain_job.h"
#include "train/tokenizer_job.h"

namespace tessera::apps {

FeatureConfig feature_config(const RunConfig& config);
TokenizerConfig tokenizer_config(const RunConfig& config);
BackboneConfig backbone_config(const RunConfig& config);
GptConfig gpt_config(const RunConfig& config);
PretrainConfig pretrain_config(const RunConfig& config);
Compat compat_of(const RunConfig& config);
/// Places of [start, codes, stop] that a model of tokens sees of a jet; 0 = all.
std::int64_t token_slots(const RunConfig& config);
/// Whether the backbone is OmniJet-alpha's; throws Error(usage) where the backbone does not go with
/// the data contract or with run.compat.
bool tokens_in(const RunConfig& config);

/// Jets to train the tokenizer on, and those of pretrain.classes.
UnlabelledData unlabelled_data(const RunConfig& config);
UnlabelledData pretraining_data(const RunConfig& config);

/// finetune.validation.
Validation finetune_validation(const RunConfig& config);
/// "use", "absolute" or "ignore".
Weights parse_weights(const std::string& text);
/// A split of a dataset; says on stderr that it has weights which are ignored.
std::shared_ptr<const Dataset> open_split(const std::string& directory,
                                          const DatasetOptions& options);
/// Train, validation and test jets of a dataset directory for a task. For tag the labels of all
/// three have the order of the training split's classes; other tasks read no class labels. Weights
/// are as data.weights has it; "absolute" is of training and validation alone. Throws Error(data)
/// where these have a negative weight.
Splits open_splits(const std::string& directory, Task task, const RunConfig& config);

TokenizerJob tokenizer_job(const RunConfig& config);
PretrainJob pretrain_job(const RunConfig& config);
GptPretrainJob gpt_pretrain_job(const RunConfig& config);

/// One fine-tuning: which network, from where, on what.
struct Study {
  std::string task, method, strategy;
  std::int64_t train_jets = 0;
  bool alone = true;  ///< the only number of jets of the run
  /// "TASK__METHOD__STRATEGY__seedK", with the jets behind the strategy where there are several:
  /// its stage directory and evaluation file.
  [[nodiscard]] std::string name(std::int64_t seed) const;
};
/// Task by task and number by number: the individual methods, then the strategies of the foundation
/// model.
std::vector<Study> studies_of(const RunConfig& config);
FinetuneJob finetune_job(const RunConfig& config, const Study& study, std::int64_t seed,
                         const Dataset& data);

}  // namespace tessera::apps
