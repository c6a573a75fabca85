// Trainer: one optimizer step at a time over a flat parameter arena.
#pragma once

#include <array>
#include <cmath>
#include <deque>
#include <functional>
#include <optional>
#include <span>

#include "core/graph.h"
#include "core/staging.h"
#include "core/storage.h"
#include "kernels/adamw/adamw.h"
#include "nn/module.h"
#include "train/progress.h"

namespace tessera {

/// What weight decay acts on.
enum class Decay {
  matrices,    ///< of linear layers: not norms, biases, gates, embeddings, codebooks
  everything,  ///< as the published trainings
};

struct TrainerConfig {
  float lr = 1e-3F;                 ///< peak learning rate
  float final_lr_fraction = 0.01F;  ///< cosine ends here
  float weight_decay = 0.01F;
  float clip_norm = 1.0F;  ///< global gradient norm; 0 = no clipping
  float beta2 = 0.999F;
  std::int64_t steps = 1000;
  std::int64_t warmup = 50;  ///< steps from lr / warmup to lr, then a half cosine; -1 = steps / 20
  std::string schedule = "cosine";  ///< cosine | constant | one_cycle_cooldown
  std::int64_t epoch_steps = 1000;  ///< of an epoch, which the other two schedules count in
  Decay decay = Decay::matrices;
};

/// Parameters with their own share of the learning rate.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  float lr_scale = 1.0F;
};

/// AdamW with a learning-rate schedule. Owns the arena of the step: everything the loss function
/// makes is gone when step() or queue() returns.
class Trainer {
 public:
  Trainer(const std::vector<ParameterGroup>& groups, const TrainerConfig& config);

  /// Forward, backward, update; returns the loss. Throws Error(numeric) on a non-finite loss or
  /// gradient, naming the first parameter that has one, with the weights as they were. On a device
  /// the host waits once, for what the whole step left.
  float step(const std::function<Tensor()>& loss);

  /// Queues a step, which then counts as done. On cpu it is, and throws as step() does; of a device
  /// nothing is known before settle(), so that its next step can be queued meanwhile: at most
  /// kInFlight are. Where the current stream is an OwnedStream's a device is given each step but
  /// the first as one graph. TESSERA_GRAPH=off in the environment queues kernel by kernel; the bits
  /// are the same.
  void queue(const std::function<Tensor()>& loss);
  /// Waits for the oldest step in flight alone: watched(), gradient_norm() and learning_rate() are
  /// now its. Throws as step() does; what was queued behind a bad step has changed nothing, and
  /// neither that one nor these count as done.
  void settle();
  [[nodiscard]] std::size_t in_flight() const { return in_flight_.size(); }
  /// Of the steps that were queued as graphs.
  [[nodiscard]] GraphQueue::Counts graphs() const;
  static constexpr std::size_t kInFlight = 2;

  /// Inside the loss function: a scalar whose value the step's line in the log holds, read with the
  /// loss. At most kWatched a step.
  void watch(const char* name, const Tensor& scalar);
  /// The loss of the last settled step, then what it watched, in order.
  [[nodiscard]] const Metrics& watched() const { return last_.watched; }
  static constexpr std::size_t kWatched = 8;

  [[nodiscard]] std::int64_t steps_done() const { return done_; }
  /// Counts the step that just threw as done, with no numbers: schedule and data go on, weights and
  /// moments stay, and AdamW's bias correction counts updates only.
  void skip_step();
  [[nodiscard]] std::int64_t skipped() const { return skipped_; }
  [[nodiscard]] std::int64_t steps() const { return config_.steps; }
  /// Of the last settled step: norm of all gradients before clipping, and the peak group's rate.
  [[nodiscard]] double gradient_norm() const { return last_.norm; }
  [[nodiscard]] double learning_rate() const { return last_.lr; }

  /// Zeroes the optimizer's moments of some rows of a parameter: rows that were replaced from
  /// outside must not move on with the momentum of what stood there before.
  void forget(const Tensor& parameter, std::span<const std::int64_t> rows);

  /// Everything that a bit-exact resume needs besides the weights.
  [[nodiscard]] std::vector<NamedTensor> optimizer_state() const;
  /// Throws Error(data) if the moments are missing or of another size.
  void load_optimizer_state(const std::vector<NamedTensor>& state, std::int64_t steps_done,
                            std::int64_t skipped = 0);

 private:
  /// What is known of a step.
  struct Record {
    std::int64_t step = 0;
    double lr = 0, norm = NAN;
    Metrics watched{{"loss", NAN}};
  };

  [[nodiscard]] std::vector<AdamWSpan> spans() const;
  [[nodiscard]] AdamWOptions options() const;
  [[nodiscard]] AdamWBuffers buffers() const { return {flat_.values, flat_.gradients, m_, v_}; }
  [[nodiscard]] std::string non_finite_gradient() const;
  [[nodiscard]] std::string owner_of(std::int64_t element) const;
  [[noreturn]] void fail_loss(float loss) const;
  [[noreturn]] void fail_gradient(const std::string& name) const;
  void step_on_cpu(const std::function<Tensor()>& loss);
  void queue_on_device(const std::function<Tensor()>& loss);
  void compute_on_device(const std::function<Tensor()>& loss);
  [[nodiscard]] GraphQueue* graph_queue();
  void read_board(std::span<const float> board);
  [[nodiscard]] Record& making() { return adamw_ ? making_ : last_; }
  [[nodiscard]] Readback& readback(std::int64_t step) {
    return *reads_[static_cast<std::size_t>(step) % kInFlight];
  }

  TrainerConfig config_;
  FlatParameters flat_;
  Tensor m_, v_;
  std::vector<float> lr_scale_;  // one a parameter
  StepArena arena_;
  std::optional<AdamWOnDevice> adamw_;  // devices only
  bool use_graphs_;
  bool has_queued_ = false;
  std::optional<GraphQueue> graphs_;  // for the stream that was current last
  Tensor board_;                      // what a step leaves on the device: report, loss
  std::array<std::optional<Readback>, kInFlight> reads_;  // of the board behind each step
  std::deque<Record> in_flight_;                          // the oldest first
  Record making_, last_;
  std::int64_t done_ = 0, skipped_ = 0;
};

/// The random stream of the next step's dropout: a function of seed and step, so that a resumed
/// training draws the same.
Rng dropout_of(std::uint64_t seed, const Trainer& trainer);

}  // namespace tessera
