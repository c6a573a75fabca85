// Pre-training of the backbone on unlabelled jets: next token and masked particle in one pass.
#pragma once

#include <optional>

#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"
#include "train/best_state.h"
#include "train/mixed_batches.h"

namespace tessera {

/// Backbone and objective under one set of names: "backbone.*" and "head.pretrain.*".
struct PretrainModel : Module {
  Backbone backbone;
  PretrainHead head;
  PretrainModel(const BackboneConfig& backbone, const PretrainConfig& objective, Rng& rng);
};

struct PretrainJob {
  BackboneConfig backbone;
  PretrainConfig objective;
  TrainerConfig trainer;
  std::int64_t batch = 128;  ///< jets
  std::uint64_t seed = 1;
  RunFiles files;
  Device device = kCpu;  ///< where it trains; the tokenizer must lie there
  Selection selection{};
};

/// Losses on jets that were not trained on, nats per scored row; nothing where no row is scored.
struct PretrainMeasure {
  std::optional<double> ntp;   ///< next token: codes and stop
  std::optional<double> mpm;   ///< codes of masked particles
  std::optional<double> loss;  ///< what is trained, mean over jets
  /// Entropy of the next-token targets: the best constant answer's loss.
  std::optional<double> unigram;
};

/// Trains on the training jets, with codes of the frozen tokenizer. Resumes from job.files.
std::unique_ptr<PretrainModel> pretrain(const PretrainJob& job, const Tokenizer& tokenizer,
                                        const UnlabelledData& data, const Observer& observe);

/// One pass over the validation jets; masks by `seed`.
PretrainMeasure measure_pretraining(const PretrainModel& model, const Tokenizer& tokenizer,
                                    const UnlabelledData& data, std::uint64_t seed);
/// The line of an evaluation during training: "val_loss", "val_ntp" and, where a particle was
/// masked, "val_mpm". Throws Error(data) where there is no jet to choose the best state by.
Metrics validation_metrics(const PretrainMeasure& measure);

}  // namespace tessera
