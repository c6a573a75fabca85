#include "train/unlabelled_training.h"

namespace tessera {

void train_unlabelled(const UnlabelledTraining& training, const UnlabelledData& data,
                      const Observer& observe, const UnlabelledStep& step) {
  TrainingRun run({.job = training.job,
                   .groups = {{training.model.named_parameters()}},
                   .state = state(training.model),
                   .trainer = training.trainer},
                  training.files, observe);
  MixedBatches batches(data, training.batch, training.seed, run.texts());
  run.on_save([&](Checkpoint& c) { batches.save(c.state); });
  while (!run.finished()) {
    const Batch batch = batches.next(run.trainer().steps_done());
    Metrics metrics = step(run.trainer(), batch);
    run.end_step(batch.size(), std::move(metrics), batches.waited_seconds());
  }
}

}  // namespace tessera
