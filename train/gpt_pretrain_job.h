// Pre-training of OmniJet-alpha's GPT on unlabelled jets: the next token.
#pragma once

#include "nn/models/reference_compat.h"
#include "train/pretrain_job.h"

namespace tessera {

/// OmniJet-alpha's GPT with its next-token head: "backbone.*" and "head.*".
struct GptPretrainModel : Module {
  GptBackbone backbone;
  NextTokenHead head;
  GptPretrainModel(const GptConfig& config, Rng& rng);
};

struct GptPretrainJob {
  GptConfig backbone;
  TrainerConfig trainer;
  std::int64_t batch = 256;  ///< jets
  std::uint64_t seed = 1;
  RunFiles files;
  Device device = kCpu;           ///< where it trains; the tokenizer must lie there
  Compat compat = Compat::clean;  ///< reference: pads count up to data.max_constituents slots
  Selection selection{};
};

/// Trains on the training jets, with codes of the frozen tokenizer. Resumes from job.files. `loss`
/// in the log is what is trained, `ntp` the mean over real targets; a clean training has them
/// equal.
std::unique_ptr<GptPretrainModel> pretrain(const GptPretrainJob& job, const Tokenizer& tokenizer,
                                           const UnlabelledData& data, const Observer& observe);

/// One pass over the validation jets, clean in either case; mpm is 0.
PretrainMeasure measure_pretraining(const GptPretrainModel& model, const Tokenizer& tokenizer,
                                    const UnlabelledData& data);

}  // namespace tessera
