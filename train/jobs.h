// The three trainings of the main job: tokenizer, pre-training, fine-tuning. Each reads a dataset,
// trains, and returns what it measured; progress goes to an observer, files to the caller.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "nn/models/backbone.h"
#include "nn/models/heads.h"
#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"
#include "train/tasks.h"
#include "train/trainer.h"

namespace tessera {

/// One line of progress. `values` are what metrics.jsonl stores.
struct Progress {
  std::string job;
  std::int64_t step = 0, steps = 0;
  double jets_per_second = 0;
  std::vector<Metric> values;
};
using Observer = std::function<void(const Progress&)>;

/// Jets of several datasets of one contract, for unlabelled training.
struct UnlabelledData {
  std::vector<std::shared_ptr<const Dataset>> train;
  FeatureConfig features;
};

struct TokenizerJob {
  TokenizerConfig model;
  TrainerConfig trainer;
  std::int64_t batch = 256;
  std::int64_t dead_code_timeout = 50;
  std::uint64_t seed = 1;
};

struct TokenizerResult {
  std::unique_ptr<Tokenizer> tokenizer;
  double reconstruction_mse = 0, usage = 0, perplexity = 0,
         token_entropy = 0;          // entropy: nats, unigram
  std::vector<std::int64_t> counts;  // of each code
};

/// Trains on all jets of `data`, then measures reconstruction and code usage over one pass.
TokenizerResult train_tokenizer(const TokenizerJob& job, const UnlabelledData& data,
                                const Observer& observe);

struct PretrainJob {
  BackboneConfig backbone;
  PretrainConfig objective;
  TrainerConfig trainer;
  std::int64_t batch = 128;
  std::uint64_t seed = 1;
};

struct PretrainResult {
  std::unique_ptr<Backbone> backbone;
  double ntp = 0, mpm = 0;  // mean over the last tenth of the steps, nats
};

PretrainResult pretrain(const PretrainJob& job, const Tokenizer& tokenizer,
                        const UnlabelledData& data, const Observer& observe);

/// What is trained, and from where.
enum class Strategy { individual, scratch, random_frozen, frozen, full };
const char* name(Strategy strategy);
inline constexpr Strategy kAllStrategies[] = {Strategy::individual, Strategy::scratch,
                                              Strategy::random_frozen, Strategy::frozen,
                                              Strategy::full};

struct FinetuneJob {
  Task task = Task::tau_pt;
  Strategy strategy = Strategy::full;
  BackboneConfig backbone;
  std::int64_t head_blocks = 1;
  TrainerConfig trainer;
  float backbone_lr = 0.3F;  ///< of the head's, for pre-trained backbones
  std::int64_t batch = 128;
  std::int64_t train_jets = 2000;
  std::uint64_t seed = 1;
};

struct FinetuneResult {
  Predictions test;
  std::vector<Metric> metrics;
  std::int64_t parameters = 0, train_jets = 0;
};

/// Trains on a nested subset, keeps the best validation state, evaluates on the test split.
/// `pretrained` holds the backbone's state for Strategy::frozen and full.
FinetuneResult finetune(const FinetuneJob& job, const std::shared_ptr<const Dataset>& train,
                        const std::shared_ptr<const Dataset>& validation,
                        const std::shared_ptr<const Dataset>& test, const FeatureConfig& features,
                        const std::vector<NamedTensor>& pretrained, const Observer& observe);

}  // namespace tessera
