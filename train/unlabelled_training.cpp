#include "train/unlabelled_training.h"

#include <algorithm>
#include <optional>

namespace tessera {
namespace {

Metrics evaluated(Module& model, const UnlabelledValidation& validate) {
  model.set_training(false);
  Metrics losses = validate();
  model.set_training(true);
  return losses;
}

void check_validation(const std::string& job, const UnlabelledData& data) {
  const auto holds_a_jet = [&](const auto& set) { return !unlabelled_jets(data, *set).empty(); };
  TESSERA_CHECK_KIND(ErrorKind::data, std::ranges::any_of(data.validation, holds_a_jet),
                     "{}: expected a jet in the validation split to choose the best state by, got "
                     "none",
                     job);
}

}  // namespace

void train_unlabelled(const UnlabelledTraining& training, const UnlabelledData& data,
                      const Observer& observe, const UnlabelledStep& step,
                      const UnlabelledValidation& validate) {
  const Selection& selection = training.selection;
  selection.check();
  check_unweighted(data, training.job);
  if (selection.evaluations > 0) {
    check_validation(training.job, data);
  }
  TrainingRun run({.job = training.job,
                   .groups = {{training.model.named_parameters()}},
                   .state = state(training.model),
                   .trainer = training.trainer},
                  training.files, observe);
  MixedBatches batches(data, training.batch, training.seed, run.texts());
  BatchFeed feed(
      {training.model.device(), training.tables, run.steps()},
      {[&](std::int64_t at) { return batches.next(at); }, [&] { return batches.cursors(); }});
  std::optional<BestState> best;
  if (selection.evaluations > 0) {
    best.emplace(state(training.model), run);
  }
  run.on_save([&](Checkpoint& c) {
    batches.save(c.state, feed.cursors());
    if (best) best->save(c);
  });
  while (!run.finished() && !(best && best->exhausted(selection.patience))) {
    const Batch batch = feed.next(run.steps_done());
    step(run, batch);
    Metrics losses;
    if (selection.due(run)) {
      run.settle();
      losses = evaluated(training.model, validate);
      best->offer(losses.at(0).value);
    }
    run.end_step(batch.size(), std::move(losses), batches.waited_seconds());
  }
  if (best) {
    best->restore();
  }
}

}  // namespace tessera
