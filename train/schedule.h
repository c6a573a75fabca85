// Learning-rate schedules in optimizer steps: a pure function, so a restart needs the step alone.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

struct ScheduleConfig {
  std::string kind = "cosine";  ///< cosine | constant | one_cycle_cooldown
  double lr = 1e-3;             ///< peak
  std::uint64_t total_steps =
      1000;  ///< cosine: step at which the end is reached, counted after all cuts
  std::uint64_t warmup_steps = 0;     ///< cosine: linear from lr / warmup_steps to lr
  double final_lr = -1;               ///< cosine: end value; negative = 1 % of lr
  std::uint64_t steps_per_epoch = 1;  ///< constant and one_cycle_cooldown advance per epoch
  // one_cycle_cooldown, in epochs and fractions of lr: OmniJet-alpha's 4/20/50, 0.5 -> 1 -> 0.5 ->
  // 0.3
  double rise_epochs = 4, fall_epochs = 20, cooldown_epochs = 50;
  double start_fraction = 0.5, end_fraction = 0.5, cooldown_fraction = 0.3;
};

/// Learning rate of optimizer step `step` (0 = the first).
///   cosine: warm-up, then end + (lr - end) (1 + cos(pi t)) / 2, t in [0, 1] after it; constant
///   beyond. constant: lr / 3 in the first epoch, then lr (PyTorch's ConstantLR default).
///   one_cycle_cooldown: linear start -> lr -> end -> cooldown, then constant.
/// Throws Error(usage) for an unknown kind.
double learning_rate(const ScheduleConfig& config, std::uint64_t step);

}  // namespace tessera
