// Fine-tuning: one task, one method, one strategy, one seed.
#pragma once

#include "train/predict.h"
#include "train/task_model.h"
#include "train/training_run.h"

namespace tessera {

/// What is trained, and from where.
enum class Strategy {
  scratch,        ///< everything, from random weights
  random_frozen,  ///< the head, on a frozen random backbone: a control
  frozen,         ///< the head, on the frozen pre-trained backbone
  lpft,           ///< the head for a fifth of the steps or to its plateau, then everything
  delayed,        ///< the head for three tenths of the steps, then everything at one rate
  full,           ///< everything, from the pre-trained backbone
  lora,           ///< the head and adapters of the frozen pre-trained backbone, merged at the end
};
const char* name(Strategy strategy);
Strategy parse_strategy(const std::string& text);
/// Whether it begins from the pre-trained backbone.
bool pretrained(Strategy strategy);

/// Where the labels come from that choose the best state and the learning rate.
enum class Validation {
  fixed,   ///< the whole validation split, as the published studies
  subset,  ///< a fifth of the training jets, at least 50: they count as labels
};

struct FinetuneJob {
  TaskModelConfig model;
  Strategy strategy = Strategy::full;
  TrainerConfig trainer;
  float backbone_lr = 0.1F;  ///< of the head's, where a pre-trained backbone is trained
  std::int64_t batch = 128;  ///< jets
  std::int64_t train_jets = 2000;
  Validation validation = Validation::fixed;
  std::int64_t evaluations = 8;  ///< of the validation loss, evenly over the steps
  std::int64_t patience = 0;     ///< evaluations without a better one before it ends; 0 = none
  LoraConfig lora{};
  std::uint64_t seed = 1;
  RunFiles files;
  Device device = kCpu;  ///< where it trains
};

/// Optimizer steps for N labelled jets, the same for every strategy: 50 epochs, between 500 and
/// 20 000.
std::int64_t step_budget(std::int64_t jets, std::int64_t batch);

/// Weights of the pre-trained parts: states under the names of Backbone or GptBackbone, and of the
/// Tokenizer, which method omnijet needs with every strategy.
struct Foundation {
  std::vector<NamedTensor> backbone, tokenizer;
};

/// The three splits of a dataset.
struct Splits {
  std::shared_ptr<const Dataset> train, validation, test;
  FeatureConfig features;
  [[nodiscard]] bool weighted() const {
    return train->weighted() || validation->weighted() || test->weighted();
  }
};

/// What a study needs of its three splits, before anything is trained: the columns of the task's
/// truth in each file, and a jet to train on and one to choose the best state by. Throws
/// Error(data) naming file and column, or split. The test split may hold no jet that takes part.
void check_labels(Task task, Validation validation, const Splits& data);

struct FinetuneResult {
  std::unique_ptr<TaskModel> model;  ///< with the weights of the best validation loss
  double validation_loss = 0;
  std::int64_t train_jets = 0;  ///< labels that were used, those of a validation subset included
};

/// Trains on a nested subset of the training jets that take part and keeps the best state by
/// validation loss. Weighted jets count by their weights in both; a negative one is refused with
/// Error(data). Resumes from job.files.
FinetuneResult finetune(const FinetuneJob& job, const Splits& data, const Foundation& foundation,
                        const Observer& observe);

}  // namespace tessera
