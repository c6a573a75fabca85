// The loop that trainings on unlabelled jets share: mixed batches, one optimizer step each, exact
// resume.
#pragma once

#include "train/mixed_batches.h"
#include "train/training_run.h"

namespace tessera {

struct UnlabelledTraining {
  std::string job;  ///< its name in the progress
  const Module& model;
  TrainerConfig trainer;
  std::int64_t batch = 256;  ///< jets
  std::uint64_t seed = 1;
  RunFiles files;
};

/// The part of a job that every such training has.
UnlabelledTraining unlabelled_training(const char* name, const auto& job, const Module& model) {
  return {.job = name,
          .model = model,
          .trainer = job.trainer,
          .batch = job.batch,
          .seed = job.seed,
          .files = job.files};
}

/// One optimizer step on a batch; returns what the step's line in metrics.jsonl holds.
using UnlabelledStep = std::function<Metrics(Trainer& trainer, const Batch& batch)>;

/// Trains all parameters of the model. Resumes from the files of `training`.
void train_unlabelled(const UnlabelledTraining& training, const UnlabelledData& data,
                      const Observer& observe, const UnlabelledStep& step);

}  // namespace tessera
