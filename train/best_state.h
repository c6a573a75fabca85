// The weights of the best evaluation of a training.
#pragma once

#include <cmath>

#include "train/training_run.h"

namespace tessera {

/// How often a training is judged by a loss on other jets, and when it gives up.
struct Selection {
  std::int64_t evaluations = 0;  ///< evenly over the steps; 0 = the last weights are kept
  std::int64_t patience = 0;     ///< evaluations without a better one before it ends; 0 = none

  /// Throws Error(usage) on a patience that nothing would ever use up.
  void check() const;
  /// Whether the step that was just done is followed by an evaluation: every steps / evaluations,
  /// and at the end.
  [[nodiscard]] bool due(const TrainingRun& run) const;
};

/// The state of the lowest validation loss so far; part of each checkpoint, so that a resumed
/// training chooses among all evaluations.
class BestState {
 public:
  /// `state`: weights and buffers of the model, which are copied.
  BestState(std::vector<NamedTensor> state, const TrainingRun& run);
  void offer(double loss);
  /// Puts the best state into the model; where nothing was offered, its first.
  void restore() const;
  void save(Checkpoint& checkpoint) const;
  [[nodiscard]] double loss() const { return loss_; }
  /// Whether so many evaluations in a row brought nothing better; never for 0.
  [[nodiscard]] bool exhausted(std::int64_t patience) const {
    return patience > 0 && stale_ >= patience;
  }

 private:
  std::vector<NamedTensor> state_, copies_;
  double loss_ = INFINITY;
  std::int64_t stale_ = 0;  // evaluations since
};

}  // namespace tessera
