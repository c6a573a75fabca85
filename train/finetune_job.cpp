#include "train/finetune_job.h"

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "train/batch_feed.h"
#include "train/best_state.h"
#include "train/metrics/statistics.h"
#include "train/mixed_batches.h"
#include "train/model_store.h"
#include "train/task_outputs.h"

namespace tessera {
namespace {

constexpr std::pair<Strategy, const char*> kNames[] = {
    {Strategy::scratch, "scratch"}, {Strategy::random_frozen, "random-frozen"},
    {Strategy::frozen, "frozen"},   {Strategy::lpft, "lpft"},
    {Strategy::delayed, "delayed"}, {Strategy::full, "full"},
    {Strategy::lora, "lora"}};

/// A stretch of steps with one set of trained parameters.
struct Phase {
  std::string name;  // of its directory; empty for the last
  bool backbone = true;
  float head_lr = 1, backbone_lr = 1;
  double share = 1;           // of the steps
  std::int64_t patience = 0;  // evaluations without a better one before it ends; 0 = none
};

std::vector<Phase> phases_of(const FinetuneJob& job) {
  const std::int64_t patience = job.patience;
  switch (job.strategy) {
    case Strategy::random_frozen:
    case Strategy::frozen:
      return {{.backbone = false, .patience = patience}};
    case Strategy::lpft:
      return {
          {.name = "head", .backbone = false, .share = 0.2, .patience = 3},
          {.head_lr = 0.3F, .backbone_lr = job.backbone_lr, .share = 0.8, .patience = patience}};
    case Strategy::delayed:
      return {{.name = "head", .backbone = false, .share = 0.3},
              {.share = 0.7, .patience = patience}};
    case Strategy::full:
      return {{.backbone_lr = job.backbone_lr, .patience = patience}};
    case Strategy::scratch:
    case Strategy::lora:
      return {{.patience = patience}};
  }
  return {};
}

// Not freeze(), which is for good: the backbone is released in a later phase.
void require_gradients(const Module& module, bool on) {
  for (const NamedTensor& p : module.named_parameters()) {
    Tensor tensor = p.tensor;
    tensor.set_requires_grad(on);
  }
}

std::vector<ParameterGroup> groups_of(const TaskModel& model, const Phase& phase) {
  if (!model.backbone()) {
    return {{model.named_parameters()}};
  }
  std::vector<ParameterGroup> groups{{model.head()->named_parameters("head"), phase.head_lr}};
  if (phase.backbone) {
    groups.push_back(
        {trainable(model.backbone()->named_parameters("backbone")), phase.backbone_lr});
  }
  return groups;
}

TrainerConfig trainer_of(const FinetuneJob& job, const Phase& phase) {
  TrainerConfig config = job.trainer;
  const double steps = phase.share * static_cast<double>(config.steps);
  config.steps = std::max<std::int64_t>(1, std::llround(steps));
  if (!phase.name.empty() || phase.share < 1) {
    config.warmup = -1;
  }
  return config;
}

RunFiles files_of(const FinetuneJob& job, const Phase& phase) {
  RunFiles files = job.files;
  if (!files.directory.empty() && !phase.name.empty()) {
    files.directory /= phase.name;
  }
  return files;
}

/// The labelled jets of a job.
struct Labels {
  std::vector<std::uint64_t> train;
  std::shared_ptr<const Dataset> validation_data;
  std::vector<std::uint64_t> validation;  // of validation_data
};

/// The first `count` of `pool` in the class-stratified order of the seed.
std::vector<std::uint64_t> first_of(const FinetuneJob& job, const Dataset& data,
                                    const std::vector<std::uint64_t>& pool, std::int64_t count) {
  const auto all = data.ids();
  std::vector<std::uint64_t> ids;
  for (const std::uint64_t j : pool) {
    ids.push_back(all[j]);
  }
  return nested_subset(pool, ids, stratify_labels(job.model.task, data, pool),
                       std::min<std::uint64_t>(pool.size(), static_cast<std::uint64_t>(count)),
                       job.seed);
}

/// The jets of a split that take part, of which there must be one.
std::vector<std::uint64_t> labelled_jets(Task task, const Dataset& data, const char* split) {
  auto jets = select_jets(task, data);
  TESSERA_CHECK_KIND(ErrorKind::data, !jets.empty(),
                     "{}: expected a jet that takes part in the {} split of the dataset '{}', got "
                     "none among {}",
                     name(task), split, data.manifest().name, data.size());
  return jets;
}

std::vector<double> weights_of(const Dataset& data, const std::vector<std::uint64_t>& jets) {
  std::vector<double> weights;
  for (std::size_t i = 0; i < jets.size() && data.weighted(); ++i) {
    weights.push_back(static_cast<double>(data.weights()[jets[i]]));
  }
  return weights;
}

void check_weights(const Task task, const Dataset& data, const std::vector<std::uint64_t>& jets) {
  data.check_no_negative_weight();
  TESSERA_CHECK_KIND(ErrorKind::data, total_weight(weights_of(data, jets), jets.size()) > 0,
                     "{}: expected {} jets of '{}' with a weight above 0 among them, got none",
                     name(task), jets.size(), data.manifest().name);
}

Labels labels_of(const FinetuneJob& job, const Splits& data) {
  const Task task = job.model.task;
  const auto subset =
      first_of(job, *data.train, labelled_jets(task, *data.train, "training"), job.train_jets);
  if (job.validation == Validation::fixed) {
    return {subset, data.validation, labelled_jets(task, *data.validation, "validation")};
  }
  const auto n = static_cast<std::int64_t>(subset.size());
  const std::int64_t held_out = std::max<std::int64_t>(50, n / 5);
  TESSERA_CHECK(n > held_out, "finetune: {} jets leave none to train on beside {} for validation",
                n, held_out);
  Labels labels{first_of(job, *data.train, subset, n - held_out), data.train, {}};
  std::ranges::set_difference(subset, labels.train, std::back_inserter(labels.validation));
  return labels;
}

/// Training mode, with a frozen backbone in evaluation mode.
void set_training(TaskModel& model, const Phase& phase) {
  model.set_training(true);
  if (model.backbone() && !phase.backbone) {
    model.backbone()->set_training(false);
  }
}

double validation_loss(TaskModel& model, const Phase& phase, const Labels& labels,
                       const FeatureConfig& features) {
  model.set_training(false);
  const double loss =
      predict_labelled(model, labels.validation_data, labels.validation, features).loss;
  set_training(model, phase);
  return loss;
}

/// One phase from its checkpoint or its start; returns the best validation loss, with its weights
/// in the model.
double train_phase(const FinetuneJob& job, const Phase& phase, TaskModel& model, const Splits& data,
                   const Labels& labels, const Observer& observe) {
  TrainingRun run({.job = fmt::format("{} {} {}", name(job.model.task), name(job.model.method),
                                      name(job.strategy)),
                   .groups = groups_of(model, phase),
                   .state = state(model),
                   .trainer = trainer_of(job, phase)},
                  files_of(job, phase), observe);
  const Selection selection{job.evaluations, phase.patience};
  BestState best(state(model), run);
  BatchConfig batching;
  batching.jets = static_cast<std::uint32_t>(job.batch);
  Batcher batches(data.train, data.features, batching, job.seed, labels.train,
                  load_cursor(run.texts(), "cursor", *data.train));
  BatchFeed feed({model.device(), model.tables(), run.steps()},
                 {[&](std::int64_t) { return batches.next(); },
                  [&] { return std::vector{batches.cursor()}; }});
  run.on_save([&](Checkpoint& c) {
    save_cursor(c.state, "cursor", feed.cursors().front(), *data.train);
    best.save(c);
  });
  set_training(model, phase);
  while (!run.finished() && !best.exhausted(phase.patience)) {
    const Batch batch = feed.next(run.steps_done());
    const DropoutStream dropout = dropout_of(job.seed, run.trainer());
    run.step([&] { return model.loss(model(batch, dropout), batch); });
    Metrics metrics;
    if (selection.due(run)) {
      run.settle();
      const double now = validation_loss(model, phase, labels, data.features);
      metrics.push_back({"val_loss", now});
      best.offer(now);
    }
    run.end_step(batch.size(), std::move(metrics), batches.waited_seconds());
  }
  best.restore();
  return best.loss();
}

/// Weights and buffers of backbone and tokenizer that no phase to come may change.
std::string frozen_hash(const TaskModel& model) {
  std::vector<NamedTensor> frozen;
  for (const Module* part : {model.backbone(), static_cast<Module*>(model.tokenizer())}) {
    if (part) {
      std::ranges::copy_if(state(*part), std::back_inserter(frozen),
                           [](const NamedTensor& t) { return !t.tensor.requires_grad(); });
    }
  }
  return state_hash(frozen);
}

/// Puts the pre-trained weights in place, and the adapters where the strategy has them.
void start_from(const Foundation& foundation, const FinetuneJob& job, TaskModel& model,
                const Rng& rng) {
  if (model.tokenizer()) {
    load(*model.tokenizer(), foundation.tokenizer);
  }
  if (model.backbone() && pretrained(job.strategy)) {
    load(*model.backbone(), foundation.backbone);  // the last write before training
  }
  if (model.backbone() && job.strategy == Strategy::lora) {
    Rng draws = rng.fork("lora");
    model.add_lora(job.lora, draws);
  }
}

}  // namespace

const char* name(Strategy strategy) {
  for (const auto& [s, text] : kNames) {
    if (s == strategy) return text;
  }
  return "?";
}

Strategy parse_strategy(const std::string& text) {
  for (const auto& [s, candidate] : kNames) {
    if (text == candidate) return s;
  }
  TESSERA_FAIL(
      ErrorKind::usage,
      "strategy: expected scratch, random-frozen, frozen, lpft, delayed, full or lora, got "
      "'{}'",
      text);
}

bool pretrained(Strategy s) { return s != Strategy::scratch && s != Strategy::random_frozen; }

std::int64_t step_budget(std::int64_t jets, std::int64_t batch) {
  return std::clamp<std::int64_t>(50 * jets / batch, 500, 20'000);
}

void check_labels(Task task, Validation validation, const Splits& data) {
  (void)labelled_jets(task, *data.train, "training");
  if (validation == Validation::fixed) {
    (void)labelled_jets(task, *data.validation, "validation");
  }
  check_truth(task, *data.validation);
  check_truth(task, *data.test);
}

FinetuneResult finetune(const FinetuneJob& job, const Splits& splits, const Foundation& foundation,
                        const Observer& observe) {
  Rng init = Rng(job.seed).fork("finetune");
  FinetuneResult result;
  result.model = std::make_unique<TaskModel>(job.model, init);
  TaskModel& model = *result.model;
  Splits data = splits;
  data.features.particles = model.needs_particles();
  for (const auto& split : {data.train, data.validation}) {
    check_classes(job.model.task, job.model.classes, job.model.outputs, *split);
  }
  const Labels labels = labels_of(job, data);
  check_weights(job.model.task, *data.train, labels.train);
  check_weights(job.model.task, *labels.validation_data, labels.validation);
  result.train_jets =
      std::min<std::int64_t>(job.train_jets, std::ssize(select_jets(job.model.task, *data.train)));
  if (model.scale.defined()) {
    model.standardise(regression_targets(*data.train, labels.train),
                      weights_of(*data.train, labels.train));
  }
  start_from(foundation, job, model, init);
  model.to(job.device);
  for (const Phase& phase : phases_of(job)) {
    if (model.backbone() && job.strategy != Strategy::lora) {
      require_gradients(*model.backbone(), phase.backbone);
    }
    const std::string before = frozen_hash(model);
    result.validation_loss = train_phase(job, phase, model, data, labels, observe);
    TESSERA_CHECK_KIND(ErrorKind::internal, frozen_hash(model) == before,
                       "{}: frozen weights changed", name(job.strategy));
  }
  if (job.strategy == Strategy::lora) {
    model.merge_lora();
  }
  model.set_training(false);
  return result;
}

}  // namespace tessera
