#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"

namespace tessera {
namespace {

double cosine(const ScheduleConfig& c, std::uint64_t step) {
  if (step < c.warmup_steps) {
    return c.lr * static_cast<double>(step + 1) / static_cast<double>(c.warmup_steps);
  }
  const double end = c.final_lr < 0 ? 0.01 * c.lr : c.final_lr;
  const std::uint64_t length = c.total_steps > c.warmup_steps ? c.total_steps - c.warmup_steps : 1;
  const double t =
      std::min(static_cast<double>(step - c.warmup_steps) / static_cast<double>(length), 1.0);
  return end + (c.lr - end) * 0.5 * (1 + std::cos(std::numbers::pi * t));
}

// Linear from a to b over `epochs`, clamped.
double ramp(double a, double b, double at, double epochs) {
  return a + (b - a) * (epochs > 0 ? std::clamp(at / epochs, 0.0, 1.0) : 1.0);
}

double one_cycle(const ScheduleConfig& c, double epoch) {
  if (epoch < c.rise_epochs) {
    return c.lr * ramp(c.start_fraction, 1, epoch, c.rise_epochs);
  }
  const double fallen = epoch - c.rise_epochs;
  if (fallen < c.fall_epochs) {
    return c.lr * ramp(1, c.end_fraction, fallen, c.fall_epochs);
  }
  return c.lr *
         ramp(c.end_fraction, c.cooldown_fraction, fallen - c.fall_epochs, c.cooldown_epochs);
}

}  // namespace

double learning_rate(const ScheduleConfig& config, std::uint64_t step) {
  const std::uint64_t epoch = step / std::max<std::uint64_t>(config.steps_per_epoch, 1);
  if (config.kind == "cosine") {
    return cosine(config, step);
  }
  if (config.kind == "constant") {
    return epoch == 0 ? config.lr / 3 : config.lr;
  }
  TESSERA_CHECK(config.kind == "one_cycle_cooldown",
                "schedule.kind: expected cosine, constant or one_cycle_cooldown, got '{}'",
                config.kind);
  return one_cycle(config, static_cast<double>(epoch));
}

}  // namespace tessera
