// The loop that trainings on unlabelled jets share: mixed batches, one optimizer step each, exact
// resume.
#pragma once

#include "train/batch_feed.h"
#include "train/best_state.h"
#include "train/mixed_batches.h"

namespace tessera {

struct UnlabelledTraining {
  std::string job;  ///< its name in the progress
  Module& model;
  std::vector<Table> tables;  ///< that a step reads on the model's device
  TrainerConfig trainer;
  std::int64_t batch = 256;  ///< jets
  std::uint64_t seed = 1;
  RunFiles files;
  Selection selection;
};

/// The part of a job that every such training has.
UnlabelledTraining unlabelled_training(const char* name, const auto& job, Module& model,
                                       std::vector<Table> tables) {
  return {.job = name,
          .model = model,
          .tables = std::move(tables),
          .trainer = job.trainer,
          .batch = job.batch,
          .seed = job.seed,
          .files = job.files,
          .selection = job.selection};
}

/// One optimizer step on a batch.
using UnlabelledStep = std::function<void(TrainingRun& run, const Batch& batch)>;
/// Losses of the model, in evaluation mode, on the validation jets; the first one is to be small.
using UnlabelledValidation = std::function<Metrics()>;

/// Trains all parameters of the model; with evaluations it ends with the weights of the best one.
/// Resumes from the files of `training`.
void train_unlabelled(const UnlabelledTraining& training, const UnlabelledData& data,
                      const Observer& observe, const UnlabelledStep& step,
                      const UnlabelledValidation& validate);

}  // namespace tessera
