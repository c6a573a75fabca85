#include "train/training_run.h"

namespace tessera {
namespace {

constexpr std::uint64_t kTimingEvery = 50;  // steps: speed is smoothed over seconds anyway

}  // namespace

void copy_state(const TensorMap& from, const std::vector<NamedTensor>& targets) {
  for (const auto& [name, target] : targets) {
    const auto found = from.find(name);
    TESSERA_CHECK_KIND(ErrorKind::data, found != from.end(), "checkpoint: '{}' is missing", name);
    TESSERA_CHECK_KIND(ErrorKind::data, found->second.shape() == target.shape(),
                       "checkpoint: '{}' has shape {}, this model needs {}", name,
                       found->second.shape(), target.shape());
    copy_into(target, found->second);
  }
}

TrainingRun::TrainingRun(TrainingSetup setup, RunFiles files, Observer observe)
    : setup_(std::move(setup)),
      files_(std::move(files)),
      observe_(std::move(observe)),
      trainer_(setup_.groups, setup_.trainer) {
  std::optional<std::uint64_t> step;
  if (!files_.directory.empty()) {
    store_.emplace(files_.directory, CheckpointOptions{.keep_last = 2}, files_.io);
    resume();
    if (trainer_.steps_done() > 0) {
      step = static_cast<std::uint64_t>(trainer_.steps_done());
    }
    log_.emplace(files_.directory / "metrics.jsonl", step);
    timing_.emplace(files_.directory / "timing.jsonl", step);
  }
  meter_.emplace(setup_.job, step.value_or(0), static_cast<std::uint64_t>(setup_.trainer.steps));
}

void TrainingRun::resume() {
  auto loaded = store_->load_latest();
  if (!loaded) {
    return;
  }
  for (const std::string& message : loaded->skipped) {
    if (files_.warn) {
      files_.warn(message);
    }
  }
  TESSERA_CHECK(loaded->content.config_json == files_.config_json,
                "{}: the checkpoint was made with another model or data contract; choose another "
                "run directory",
                files_.directory.string());
  copy_state(loaded->content.model, setup_.state);
  trainer_.load_optimizer_state(tensor_list<NamedTensor>(loaded->content.optimizer),
                                static_cast<std::int64_t>(loaded->step));
  texts_ = std::move(loaded->content.state);
  tensors_ = std::move(loaded->content.optimizer);
}

void TrainingRun::save() {
  Checkpoint c;
  c.config_json = files_.config_json;
  c.model = tensor_map(setup_.state);
  c.optimizer = tensor_map(trainer_.optimizer_state());
  c.state["step"] = std::to_string(trainer_.steps_done());
  if (fill_) {
    fill_(c);
  }
  log_->sync();
  store_->save(static_cast<std::uint64_t>(trainer_.steps_done()), c);
}

void TrainingRun::save_on_the_way() {
  try {
    save();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::io || files_.stop_on_failed_save) {
      throw;
    }
    if (files_.warn) {
      files_.warn(fmt::format("{}: no checkpoint at step {}, going on: {}", setup_.job,
                              trainer_.steps_done(), e.message()));
    }
  }
}

void TrainingRun::end_step(std::uint64_t jets, Metrics values, double waited_seconds) {
  const auto step = static_cast<std::uint64_t>(trainer_.steps_done());
  values.push_back({"gradient_norm", trainer_.gradient_norm()});
  values.push_back({"lr", trainer_.learning_rate()});
  if (log_) {
    log_->write(step, values);
  }
  const Progress progress = meter_->update(step, jets, std::move(values), waited_seconds);
  if (timing_ && (step % kTimingEvery == 0 || finished())) {
    timing_->write(
        step, {{"jets_per_second", progress.jets_per_second}, {"wait_share", progress.wait_share}});
  }
  if (observe_) {
    observe_(progress);
  }
  const bool leave = files_.stop && files_.stop();
  const bool due = trainer_.steps_done() % files_.checkpoint_every == 0;
  if (store_ && (leave || finished())) {
    save();
  } else if (store_ && due) {
    save_on_the_way();
  }
  TESSERA_CHECK_KIND(ErrorKind::requeue, !leave, "{}: stopped at step {}{}", setup_.job, step,
                     store_ ? "; checkpoint written, the same command goes on" : "");
}

void TrainingRun::discard_checkpoints() {
  if (store_) {
    store_.reset();  // gives the lock back
    std::filesystem::remove_all(files_.directory / "checkpoints");
  }
}

}  // namespace tessera
