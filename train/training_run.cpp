#include "train/training_run.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "train/model_card.h"

namespace tessera {
namespace {

constexpr std::uint64_t kTimingEvery = 50;  // steps: speed is smoothed over seconds anyway
constexpr std::int64_t kMostInARow = 3;     // bad steps: chance does not do that, a fault does

Device device_of(const TrainingSetup& setup) {
  for (const ParameterGroup& g : setup.groups) {
    if (!g.parameters.empty()) {
      return g.parameters.front().tensor.device();
    }
  }
  return kCpu;
}

// What of a state no group trains.
std::vector<NamedTensor> untrained(const TrainingSetup& setup) {
  std::vector<NamedTensor> rest;
  for (const NamedTensor& t : setup.state) {
    const bool trained = std::ranges::any_of(setup.groups, [&](const ParameterGroup& g) {
      return std::ranges::any_of(
          g.parameters, [&](const NamedTensor& p) { return p.tensor.impl() == t.tensor.impl(); });
    });
    if (!trained) {
      rest.push_back(t);
    }
  }
  return rest;
}

}  // namespace

std::int64_t count_in(const std::map<std::string, std::string>& texts, const std::string& key) {
  const auto found = texts.find(key);
  if (found == texts.end()) {
    return 0;
  }
  const std::string& text = found->second;
  std::int64_t count = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  TESSERA_CHECK_KIND(ErrorKind::data,
                     error == std::errc{} && end == text.data() + text.size() && count >= 0,
                     "checkpoint: '{}': expected a whole number, got '{}'", key, text);
  return count;
}

void copy_state(const TensorMap& from, const std::vector<NamedTensor>& targets) {
  for (const auto& [name, target] : targets) {
    const auto found = from.find(name);
    TESSERA_CHECK_KIND(ErrorKind::data, found != from.end(), "checkpoint: '{}' is missing", name);
    TESSERA_CHECK_KIND(ErrorKind::data, found->second.shape() == target.shape(),
                       "checkpoint: '{}' has shape {}, this model needs {}", name,
                       found->second.shape(), target.shape());
    TESSERA_CHECK_KIND(ErrorKind::data, found->second.dtype() == target.dtype(),
                       "checkpoint: '{}' has type {}, this model needs {}", name,
                       tessera::name(found->second.dtype()), tessera::name(target.dtype()));
    copy_into(target, found->second);
  }
}

TrainingRun::TrainingRun(TrainingSetup setup, RunFiles files, Observer observe)
    : setup_(std::move(setup)),
      files_(std::move(files)),
      observe_(std::move(observe)),
      stream_(device_of(setup_)),
      trainer_(setup_.groups, setup_.trainer) {
  std::optional<std::uint64_t> step;
  if (!files_.directory.empty()) {
    store_.emplace(files_.directory, CheckpointOptions{.keep_last = 2}, files_.io);
    resume();
    if (trainer_.steps_done() > 0) {
      step = static_cast<std::uint64_t>(trainer_.steps_done());
    }
    log_.emplace(files_.directory / "metrics.jsonl", step);
    if (!log_->whole() && files_.warn) {
      files_.warn(fmt::format("{}: damaged; lines up to step {} are lost",
                              (files_.directory / "metrics.jsonl").string(), *step));
    }
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
  TESSERA_CHECK(same_card(loaded->content.config_json, files_.config_json),
                "{}: the checkpoint was made with another model or data contract; choose another "
                "run directory",
                files_.directory.string());
  copy_state(loaded->content.model, setup_.state);
  skipped_in_a_row_ = count_in(loaded->content.state, "skipped_in_a_row");
  trainer_.load_optimizer_state(tensor_list<NamedTensor>(loaded->content.optimizer),
                                static_cast<std::int64_t>(loaded->step),
                                count_in(loaded->content.state, "skipped"));
  texts_ = std::move(loaded->content.state);
  tensors_ = std::move(loaded->content.optimizer);
}

void TrainingRun::save() {
  Checkpoint c;
  c.config_json = files_.config_json;
  c.model = tensor_map(setup_.state);
  c.optimizer = tensor_map(trainer_.optimizer_state());
  c.state["step"] = std::to_string(trainer_.steps_done());
  if (!files_.settings.empty()) {
    c.state["settings"] = files_.settings;
  }
  c.state["skipped"] = std::to_string(trainer_.skipped());
  c.state["skipped_in_a_row"] = std::to_string(skipped_in_a_row_);
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

// An error on the way: the step in flight is done all the same, and its line is kept.
TrainingRun::~TrainingRun() {
  if (waiting_ && trainer_.in_flight() > 0) {
    try {
      trainer_.settle();
      if (log_) {
        log_->write(waiting_->step, values_of(*waiting_));
      }
    } catch (const std::exception&) {  // the first error is on its way already
    }
  }
}

void TrainingRun::step(const std::function<Tensor()>& loss) {
  if (files_.most_skipped > 0) {
    step_or_skip(loss);
    return;
  }
  trainer_.queue(loss);
  while (trainer_.in_flight() > 1) {
    take_in();
  }
}

bool TrainingRun::settle() {
  while (trainer_.in_flight() > 0) {
    take_in();
  }
  return !last_skipped_;
}

void TrainingRun::take_in() {
  trainer_.settle();
  if (const auto line = std::exchange(waiting_, std::nullopt)) {
    write(*line);
  }
}

void TrainingRun::step_or_skip(const std::function<Tensor()>& loss) {
  keep_buffers();
  try {
    trainer_.step(loss);
    last_skipped_ = false;
    skipped_in_a_row_ = 0;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::numeric) {
      throw;
    }
    skip(error);
    last_skipped_ = true;
  }
}

void TrainingRun::keep_buffers() {
  if (kept_.empty()) {
    buffers_ = untrained(setup_);
    for (const auto& [name, tensor] : buffers_) {
      kept_.push_back({name, tensor.detach().clone()});
    }
  }
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    copy_into(kept_[i].tensor, buffers_[i].tensor);
  }
}

void TrainingRun::skip(const Error& error) {
  const bool in_a_row = ++skipped_in_a_row_ >= kMostInARow;
  TESSERA_CHECK_KIND(ErrorKind::numeric, !in_a_row, "{}; {} steps in a row", error.message(),
                     kMostInARow);
  TESSERA_CHECK_KIND(ErrorKind::numeric, trainer_.skipped() < files_.most_skipped,
                     "{}; {} steps were skipped before, which is the most allowed", error.message(),
                     files_.most_skipped);
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    copy_into(buffers_[i].tensor, kept_[i].tensor);
  }
  trainer_.skip_step();
  if (files_.warn) {
    files_.warn(fmt::format("{}: step skipped, {} of at most {}: {}", setup_.job,
                            trainer_.skipped(), files_.most_skipped, error.message()));
  }
}

Metrics TrainingRun::values_of(const Line& line) const {
  Metrics values = trainer_.watched();
  values.insert(values.end(), line.values.begin(), line.values.end());
  values.push_back({"gradient_norm", trainer_.gradient_norm()});
  values.push_back({"lr", trainer_.learning_rate()});
  if (trainer_.skipped() > 0) {
    values.push_back({"skipped", static_cast<double>(trainer_.skipped())});
  }
  return values;
}

void TrainingRun::write(const Line& line) {
  Metrics values = values_of(line);
  if (log_) {
    log_->write(line.step, values);
  }
  const Progress progress =
      meter_->update(line.step, line.jets, std::move(values), line.waited_seconds);
  const bool last = line.step >= static_cast<std::uint64_t>(steps());
  if (timing_ && (line.step % kTimingEvery == 0 || last)) {
    timing_->write(line.step, {{"jets_per_second", progress.jets_per_second},
                               {"wait_share", progress.wait_share}});
  }
  if (observe_) {
    observe_(progress);
  }
}

void TrainingRun::end_step(std::uint64_t jets, Metrics values, double waited_seconds) {
  const auto step = static_cast<std::uint64_t>(trainer_.steps_done());
  Line line{step, jets, std::move(values), waited_seconds};
  if (trainer_.in_flight() > 0) {
    waiting_ = std::move(line);
  } else {
    write(line);
  }
  const bool leave = files_.stop && files_.stop();
  const bool due = store_ && trainer_.steps_done() % files_.checkpoint_every == 0;
  if (leave || finished() || due) {
    settle();
  }
  if (store_ && (leave || finished())) {
    save();
  } else if (due) {
    save_on_the_way();
  }
  TESSERA_CHECK_KIND(ErrorKind::requeue, !leave, "{}: stopped at step {}{}", setup_.job, step,
                     store_ ? "; checkpoint written, the same command goes on" : "");
}

void TrainingRun::discard_checkpoints() {
  if (store_) {
    store_.reset();  // gives the lock back
    files_.io.remove_all(files_.directory / "checkpoints");
  }
}

}  // namespace tessera
