// TrainingRun: a training that can be stopped anywhere and goes on with the same bits.
#pragma once

#include "core/stream_scope.h"
#include "train/checkpoint.h"
#include "train/metrics_log.h"
#include "train/trainer.h"

namespace tessera {

/// Where a training keeps its state, and when it is asked to leave.
struct RunFiles {
  /// checkpoints/, metrics.jsonl (the same bits in every repeat) and timing.jsonl (never the same);
  /// empty: nothing is kept
  std::filesystem::path directory{};
  std::int64_t checkpoint_every = 500;  ///< steps
  std::string config_json{};            ///< architecture and data contract, into each checkpoint
  std::string settings{};               ///< what the run was asked for, into each checkpoint
  std::function<bool()> stop{};  ///< asked after each step: true saves and throws Error(requeue)
  /// Damaged checkpoints that were passed over; saves that failed.
  std::function<void(const std::string&)> warn{};
  /// A save on the way that the disk refuses ends the run with Error(io), or else is a warning; one
  /// before leaving always ends it.
  bool stop_on_failed_save = true;
  /// Steps with a loss or gradient that is not finite that are passed over, in all; 0 = the first
  /// ends the run with Error(numeric). The third in a row always does.
  std::int64_t most_skipped = 0;
  FileIo io{};  ///< how checkpoints reach the disk
};

struct TrainingSetup {
  std::string job;
  std::vector<ParameterGroup> groups;  ///< what is trained
  std::vector<NamedTensor> state;      ///< what a checkpoint holds: all weights and buffers
  TrainerConfig trainer;
};

/// Owns optimizer, checkpoints, metrics file and progress. Constructed after the model got its
/// initial weights; where the directory holds a checkpoint, weights, buffers, optimizer and
/// metrics.jsonl are put back to it. While it lives, this thread's work for the model's device has
/// a stream of its own. The loop of a job is
///   while (!run.finished()) { run.step(...); run.end_step(jets, values, waited); }
/// A device is kept at work: the numbers of a step are read, and its line written, while the next
/// one runs.
class TrainingRun {
 public:
  TrainingRun(TrainingSetup setup, RunFiles files, Observer observe);

  [[nodiscard]] Trainer& trainer() { return trainer_; }
  [[nodiscard]] std::int64_t steps_done() const { return trainer_.steps_done(); }
  [[nodiscard]] std::int64_t steps() const { return trainer_.steps(); }
  [[nodiscard]] bool finished() const { return steps_done() >= steps(); }
  /// What the checkpoint held beside weights; empty when the run began here.
  [[nodiscard]] const std::map<std::string, std::string>& texts() const { return texts_; }
  [[nodiscard]] const TensorMap& tensors() const { return tensors_; }
  /// Fills what else a checkpoint must hold: texts in Checkpoint::state, tensors in ::optimizer.
  void on_save(std::function<void(Checkpoint&)> fill) { fill_ = std::move(fill); }

  ~TrainingRun();
  TrainingRun(const TrainingRun&) = delete;
  TrainingRun& operator=(const TrainingRun&) = delete;

  /// Queues a step of the trainer and takes in the one before, with its Error(numeric). Where steps
  /// may be skipped it waits for this one: a bad one then leaves weights, buffers and moments as
  /// they were and counts as done. The files' warn hears of it.
  void step(const std::function<Tensor()>& loss);
  /// Takes in all steps; false if the last one was skipped. For whoever looks at what they left.
  bool settle();

  /// Writes the step's line, now or when its numbers are there: loss and watched scalars, then
  /// `values`. Tells the observer, saves when it is time, leaves when asked.
  void end_step(std::uint64_t jets, Metrics values, double waited_seconds = 0);
  /// Deletes the checkpoints of a run whose model lies elsewhere now.
  void discard_checkpoints();

 private:
  /// What the line of a step holds beside its own numbers.
  struct Line {
    std::uint64_t step, jets;
    Metrics values;
    double waited_seconds;
  };

  void resume();
  void take_in();
  void step_or_skip(const std::function<Tensor()>& loss);
  [[nodiscard]] Metrics values_of(const Line& line) const;
  void write(const Line& line);
  void skip(const Error& error);
  void keep_buffers();
  void save();
  void save_on_the_way();

  TrainingSetup setup_;
  RunFiles files_;
  Observer observe_;
  StreamScope stream_;
  Trainer trainer_;
  std::optional<CheckpointStore> store_;
  std::optional<MetricsLog> log_, timing_;
  std::map<std::string, std::string> texts_;
  TensorMap tensors_;
  std::function<void(Checkpoint&)> fill_;
  std::optional<ProgressMeter> meter_;
  std::vector<NamedTensor> buffers_, kept_;  // what a forward pass may change; its copy
  std::int64_t skipped_in_a_row_ = 0;
  bool last_skipped_ = false;
  std::optional<Line> waiting_;  // of the step that is in flight
};

/// A whole number among a checkpoint's texts; 0 where an older one has none. Throws Error(data).
std::int64_t count_in(const std::map<std::string, std::string>& texts, const std::string& key);

/// Puts named tensors into `targets`; throws Error(data) naming one that is missing or of another
/// shape.
void copy_state(const TensorMap& from, const std::vector<NamedTensor>& targets);

}  // namespace tessera
