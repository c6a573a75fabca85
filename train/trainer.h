// Trainer: one optimizer step at a time over a flat parameter arena.
#pragma once

#include <functional>

#include "core/storage.h"
#include "nn/module.h"

namespace tessera {

struct TrainerConfig {
  float lr = 1e-3F;                 ///< peak learning rate
  float final_lr_fraction = 0.01F;  ///< cosine ends here
  float weight_decay =
      0.01F;               ///< on matrices only: not on norms, biases, gates, embeddings, codebooks
  float clip_norm = 1.0F;  ///< global gradient norm; 0 = no clipping
  float beta2 = 0.999F;
  std::int64_t steps = 1000;
  std::int64_t warmup = 50;
};

/// Linear warm-up to 1, then a half cosine to `final_fraction` at the last step. step counts from
/// 0.
float warmup_cosine(std::int64_t step, std::int64_t steps, std::int64_t warmup,
                    float final_fraction);

/// Parameters with their own share of the learning rate.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  float lr_scale = 1.0F;
};

/// AdamW with a warm-up cosine schedule. Owns the arena of the step: everything the loss function
/// makes is gone when step() returns.
class Trainer {
 public:
  Trainer(const std::vector<ParameterGroup>& groups, const TrainerConfig& config);

  /// Forward, backward, update; returns the loss. Throws Error(numeric) on a non-finite loss or
  /// gradient, with the weights as they were.
  float step(const std::function<Tensor()>& loss);
  [[nodiscard]] std::int64_t steps_done() const { return done_; }
  [[nodiscard]] double gradient_norm() const { return norm_; }

  /// Copies of all weights, and back: the best state of a validation curve.
  [[nodiscard]] std::vector<float> weights() const { return flat_.values.to_vector<float>(); }
  void restore(const std::vector<float>& weights) const;

  /// Everything that a bit-exact resume needs besides the weights.
  [[nodiscard]] std::vector<NamedTensor> optimizer_state() const;
  void load_optimizer_state(const std::vector<NamedTensor>& state, std::int64_t steps_done);

 private:
  TrainerConfig config_;
  FlatParameters flat_;
  Tensor m_, v_;
  std::vector<float> lr_scale_;  // one a parameter
  StepArena arena_;
  std::int64_t done_ = 0;
  double norm_ = 0;
};

}  // namespace tessera
