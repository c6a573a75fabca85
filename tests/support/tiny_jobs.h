// The three trainings at the smallest useful size, on random jets.
#pragma once

#include <memory>
#include <string>

#include "kernels/matmul/precision.h"
#include "support/jet_files.h"
#include "train/finetune_job.h"
#include "train/model_store.h"
#include "train/pretrain_job.h"
#include "train/tokenizer_job.h"

namespace tessera::tiny {

inline constexpr std::int64_t kSteps = 200;

inline const TokenizerConfig kTokenizer{.width = 16, .blocks = 1, .heads = 2, .codes = 32};
inline const BackboneConfig kBackbone{.width = 16, .blocks = 1, .heads = 2, .registers = 1};
inline const PretrainConfig kObjective{.codes = 32, .max_particles = 16};

/// A dataset of random jets of which train, val and test are the same file.
struct Data {
  explicit Data(const std::filesystem::path& directory, std::uint64_t seed = 1) {
    std::filesystem::create_directory(directory);
    write_dataset(directory, {random_lengths(90, seed), random_lengths(61, 2)});
    const auto train = std::make_shared<const Dataset>(directory);
    unlabelled = {.train = {train}, .validation = {train}, .features = {.max_constituents = 16}};
    splits = {train, train, train, unlabelled.features};
  }
  UnlabelledData unlabelled;
  Splits splits;
};

inline RunFiles files(const std::filesystem::path& directory) {
  return {.directory = directory, .checkpoint_every = 7};
}

inline std::string tokenizer_bits(const Data& data, const RunFiles& where,
                                  const Selection& selection = {}) {
  const TokenizerJob job{.model = kTokenizer,
                         .trainer = {.lr = 2e-3F, .steps = kSteps, .warmup = 10},
                         .batch = 16,
                         .dead_code_timeout = 5,
                         .seed = 3,
                         .files = where,
                         .selection = selection};
  return state_hash(*train_tokenizer(job, data.unlabelled, {}));
}

inline std::string pretrain_bits(const Data& data, const RunFiles& where,
                                 const Selection& selection = {}) {
  Rng rng(5);
  const Tokenizer tokenizer(kTokenizer, rng);
  const PretrainJob job{.backbone = kBackbone,
                        .objective = kObjective,
                        .trainer = {.lr = 2e-3F, .steps = kSteps, .warmup = 10},
                        .batch = 8,
                        .seed = 3,
                        .files = where,
                        .selection = selection};
  return state_hash(*pretrain(job, tokenizer, data.unlabelled, {}));
}

inline FinetuneJob finetune_job(Strategy strategy, const RunFiles& where) {
  return {.model = {.task = Task::tag, .backbone = kBackbone, .outputs = 3},
          .strategy = strategy,
          .trainer = {.lr = 2e-3F, .steps = kSteps, .warmup = 10},
          .batch = 8,
          .train_jets = 100,
          .seed = 3,
          .files = where};
}

inline std::vector<NamedTensor> backbone_weights() {
  Rng rng(11);
  const Backbone backbone(kBackbone, rng);
  return state(backbone);
}

inline std::string finetune_bits(const Data& data, const RunFiles& where) {
  return state_hash(
      *finetune(finetune_job(Strategy::lpft, where), data.splits, {backbone_weights(), {}}, {})
           .model);
}

}  // namespace tessera::tiny
