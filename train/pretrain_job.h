// Pre-training of the backbone on unlabelled jets: next token and masked particle in one pass.
#pragma once

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

/// Losses on jets that were not trained on, nats per scored row.
struct PretrainMeasure {
  double ntp = 0;      ///< next token: codes and stop
  double mpm = 0;      ///< codes of masked particles
  double loss = 0;     ///< what is trained, mean over jets
  double unigram = 0;  ///< entropy of the next-token targets: the best constant answer's loss
};

/// Trains on the training jets, with codes of the frozen tokenizer. Resumes from job.files.
std::unique_ptr<PretrainModel> pretrain(const PretrainJob& job, const Tokenizer& tokenizer,
                                        const UnlabelledData& data, const Observer& observe);

/// One pass over the validation jets; masks by `seed`.
PretrainMeasure measure_pretraining(const PretrainModel& model, const Tokenizer& tokenizer,
                                    const UnlabelledData& data, std::uint64_t seed);
/// The line of an evaluation during training: "val_loss", "val_ntp" and, unless 0, "val_mpm".
Metrics validation_metrics(const PretrainMeasure& measure);

}  // namespace tessera
