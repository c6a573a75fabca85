// Fine-tuning: one task, one method, one strategy, one seed.
#pragma once

#include "train/task_model.h"
#include "train/training_run.h"

namespace tessera {

/// What is trained, and from where (models.md 3.2).
enum class Strategy {
  scratch,        ///< everything, from random weights
  random_frozen,  ///< the head, on a frozen random backbone: a control
  frozen,         ///< the head, on the frozen pre-trained backbone
  lpft,           ///< the head for a fifth of the steps, then everything
  delayed,        ///< the head for three tenths of the steps, then everything at one rate
  full,           ///< everything, from the pre-trained backbone
};
const char* name(Strategy strategy);
Strategy parse_strategy(const std::string& text);
/// Whether it begins from the pre-trained backbone.
bool pretrained(Strategy strategy);

struct FinetuneJob {
  TaskModelConfig model;
  Strategy strategy = Strategy::full;
  TrainerConfig trainer;
  float backbone_lr = 0.1F;  ///< of the head's, where a pre-trained backbone is trained
  std::int64_t batch = 128;  ///< jets
  std::int64_t train_jets = 2000;
  std::int64_t evaluations = 8;  ///< of the validation loss, evenly over the steps
  std::int64_t patience = 0;     ///< evaluations without a better one before it ends; 0 = none
  std::uint64_t seed = 1;
  RunFiles files;
};

/// The three splits of a dataset.
struct Splits {
  std::shared_ptr<const Dataset> train, validation, test;
  FeatureConfig features;
};

struct FinetuneResult {
  std::unique_ptr<TaskModel> model;  ///< with the weights of the best validation loss
  double validation_loss = 0;
  std::int64_t train_jets = 0;
};

/// Trains on a nested subset of the training jets that take part and keeps the best state by
/// validation loss. `backbone`: state of the pre-trained one, names as Backbone's, for strategies
/// that need it. Resumes from job.files.
FinetuneResult finetune(const FinetuneJob& job, const Splits& data,
                        const std::vector<NamedTensor>& backbone, const Observer& observe);

/// Answers of a model for the jets of a split that take part, in file order, with the mean loss.
Predictions predict(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                    FeatureConfig features);

}  // namespace tessera
