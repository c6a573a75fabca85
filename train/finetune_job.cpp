#include "train/finetune_job.h"

#include <cmath>

#include "core/autograd.h"
#include "train/mixed_batches.h"
#include "train/model_store.h"

namespace tessera {
namespace {

constexpr std::pair<Strategy, const char*> kNames[] = {
    {Strategy::scratch, "scratch"}, {Strategy::random_frozen, "random-frozen"},
    {Strategy::frozen, "frozen"},   {Strategy::lpft, "lpft"},
    {Strategy::delayed, "delayed"}, {Strategy::full, "full"}};

/// A stretch of steps with one set of trained parameters.
struct Phase {
  std::string name;  // of its directory; empty for the last
  bool backbone = true;
  float head_lr = 1, backbone_lr = 1;
  double share = 1;  // of the steps
};

std::vector<Phase> phases_of(const FinetuneJob& job) {
  switch (job.strategy) {
    case Strategy::random_frozen:
    case Strategy::frozen:
      return {{.backbone = false}};
    case Strategy::lpft:
      return {{.name = "head", .backbone = false, .share = 0.2},
              {.head_lr = 0.3F, .backbone_lr = job.backbone_lr, .share = 0.8}};
    case Strategy::delayed:
      return {{.name = "head", .backbone = false, .share = 0.3}, {.share = 0.7}};
    case Strategy::full:
      return {{.backbone_lr = job.backbone_lr}};
    case Strategy::scratch:
      return {{}};
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
  if (!model.backbone) {
    return {{model.named_parameters()}};
  }
  std::vector<ParameterGroup> groups{{model.head->named_parameters("head"), phase.head_lr}};
  if (phase.backbone) {
    groups.push_back({model.backbone->named_parameters("backbone"), phase.backbone_lr});
  }
  return groups;
}

TrainerConfig trainer_of(const FinetuneJob& job, const Phase& phase) {
  TrainerConfig config = job.trainer;
  const double steps = phase.share * static_cast<double>(config.steps);
  config.steps = std::max<std::int64_t>(1, std::llround(steps));
  if (!phase.name.empty() || phase.share < 1) {
    config.warmup = config.steps / 20;
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

/// The state of the lowest validation loss so far; part of each checkpoint.
class Best {
 public:
  /// `state`: weights and buffers of the model, which are copied.
  Best(std::vector<NamedTensor> state, const TrainingRun& run) : state_(std::move(state)) {
    for (const auto& [name, tensor] : state_) {
      copies_.push_back({"best." + name, tensor.detach().clone()});
    }
    if (const auto found = run.texts().find("best.loss"); found != run.texts().end()) {
      loss_ = std::strtod(found->second.c_str(), nullptr);  // hex float: exact
      stale_ = std::stoll(run.texts().at("best.stale"));
      copy_state(run.tensors(), copies_);
    }
  }
  void offer(double now) {
    ++stale_;
    if (now < loss_) {
      loss_ = now;
      stale_ = 0;
      for (std::size_t i = 0; i < state_.size(); ++i) {
        copy_into(copies_[i].tensor, state_[i].tensor);
      }
    }
  }
  void restore() const {
    for (std::size_t i = 0; i < state_.size(); ++i) {
      copy_into(state_[i].tensor, copies_[i].tensor);
    }
  }
  void save(Checkpoint& c) const {
    c.state["best.loss"] = fmt::format("{:a}", loss_);
    c.state["best.stale"] = std::to_string(stale_);
    for (const auto& [name, tensor] : copies_) {
      c.optimizer[name] = tensor;
    }
  }
  [[nodiscard]] double loss() const { return loss_; }
  [[nodiscard]] std::int64_t stale() const { return stale_; }  // evaluations since

 private:
  std::vector<NamedTensor> state_, copies_;
  double loss_ = INFINITY;
  std::int64_t stale_ = 0;
};

std::vector<std::uint64_t> training_jets(const FinetuneJob& job, const Dataset& data) {
  const auto pool = select_jets(job.model.task, data);
  const auto all = data.ids();
  std::vector<std::uint64_t> ids;
  for (const std::uint64_t j : pool) {
    ids.push_back(all[j]);
  }
  const auto count =
      std::min<std::uint64_t>(pool.size(), static_cast<std::uint64_t>(job.train_jets));
  return nested_subset(pool, ids, stratify_labels(job.model.task, data, pool), count, job.seed);
}

/// One phase from its checkpoint or its start; returns the best validation loss, with its weights
/// in the model.
double train_phase(const FinetuneJob& job, const Phase& phase, TaskModel& model, const Splits& data,
                   const std::vector<std::uint64_t>& jets, const Observer& observe) {
  TrainingRun run({.job = fmt::format("{} {} {}", name(job.model.task), name(job.model.method),
                                      name(job.strategy)),
                   .groups = groups_of(model, phase),
                   .state = state(model),
                   .trainer = trainer_of(job, phase)},
                  files_of(job, phase), observe);
  Best best(state(model), run);
  const auto cursor = run.texts().find("cursor");
  BatchConfig batching;
  batching.jets = static_cast<std::uint32_t>(job.batch);
  Batcher batches(data.train, data.features, batching, job.seed, jets,
                  cursor == run.texts().end() ? Cursor{} : parse_cursor(cursor->second));
  run.on_save([&](Checkpoint& c) {
    c.state["cursor"] = cursor_text(batches.cursor());
    best.save(c);
  });
  Trainer& trainer = run.trainer();
  const std::int64_t every = std::max<std::int64_t>(1, trainer.steps() / job.evaluations);
  while (!run.finished() && (job.patience == 0 || best.stale() < job.patience)) {
    const Batch batch = batches.next();
    const float loss = trainer.step([&] { return model.loss(model(batch), batch); });
    Metrics metrics{{"loss", static_cast<double>(loss)}};
    if (trainer.steps_done() % every == 0 || run.finished()) {
      model.set_training(false);
      const double now = predict(model, data.validation, data.features).loss;
      model.set_training(true);
      metrics.push_back({"val_loss", now});
      best.offer(now);
    }
    run.end_step(batch.size(), std::move(metrics), batches.waited_seconds());
  }
  best.restore();
  return best.loss();
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
  TESSERA_FAIL(ErrorKind::usage,
               "strategy: expected scratch, random-frozen, frozen, lpft, delayed or full, got '{}'",
               text);
}

bool pretrained(Strategy s) { return s != Strategy::scratch && s != Strategy::random_frozen; }

FinetuneResult finetune(const FinetuneJob& job, const Splits& splits,
                        const std::vector<NamedTensor>& backbone, const Observer& observe) {
  Rng init = Rng(job.seed).fork("finetune");
  FinetuneResult result;
  result.model = std::make_unique<TaskModel>(job.model, init);
  TaskModel& model = *result.model;
  Splits data = splits;
  data.features.particles = model.needs_particles();
  const auto jets = training_jets(job, *data.train);
  result.train_jets = static_cast<std::int64_t>(jets.size());
  if (model.scale.defined()) {
    model.standardise(regression_targets(*data.train, jets));
  }
  if (model.backbone && pretrained(job.strategy)) {
    load(*model.backbone, backbone);  // the last write before training
  }
  const auto phases = phases_of(job);
  const std::string before = model.backbone ? state_hash(*model.backbone) : "";
  for (const Phase& phase : phases) {
    if (model.backbone) {
      require_gradients(*model.backbone, phase.backbone);
    }
    result.validation_loss = train_phase(job, phase, model, data, jets, observe);
  }
  TESSERA_CHECK_KIND(
      ErrorKind::internal,
      phases.back().backbone || !model.backbone || state_hash(*model.backbone) == before,
      "{}: the frozen backbone changed", name(job.strategy));
  model.set_training(false);
  return result;
}

Predictions predict(const TaskModel& model, const std::shared_ptr<const Dataset>& data,
                    FeatureConfig features) {
  const Task task = model.config.task;
  features.particles = model.needs_particles();
  Predictions p;
  const NoGrad off;
  StepArena arena;
  for_each_batch(data, features, select_jets(task, *data), 256, [&](const Batch& batch) {
    {
      const ArenaScope scope(arena);
      const Tensor y = model(batch);
      p.columns = y.shape(1);
      p.append(task, batch, y.span<const float>());
      p.loss +=
          static_cast<double>(model.loss(y, batch).item()) * static_cast<double>(batch.size());
    }
    arena.reset();
  });
  p.loss /= static_cast<double>(std::max<std::int64_t>(1, p.size()));
  return p;
}

}  // namespace tessera
