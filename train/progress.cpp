#include "train/progress.h"

#include <algorithm>
#include <cmath>

namespace tessera {

ProgressMeter::ProgressMeter(std::string job, std::uint64_t first_step, std::uint64_t total_steps)
    : job_(std::move(job)),
      total_steps_(total_steps),
      last_step_(first_step),
      start_(Clock::now()),
      last_(start_) {}

Progress ProgressMeter::update(std::uint64_t step, std::uint64_t jets, Metrics values,
                               double waited_seconds) {
  constexpr double kSmoothing = 10;  // seconds
  const Clock::time_point now = Clock::now();
  const double elapsed = std::max(std::chrono::duration<double>(now - last_).count(), 1e-9);
  const double total = std::max(std::chrono::duration<double>(now - start_).count(), 1e-9);
  const double old = steps_per_second_ > 0 ? std::exp(-elapsed / kSmoothing) : 0;
  jets_per_second_ = old * jets_per_second_ + (1 - old) * static_cast<double>(jets) / elapsed;
  steps_per_second_ =
      old * steps_per_second_ + (1 - old) * static_cast<double>(step - last_step_) / elapsed;
  last_ = now;
  last_step_ = step;
  const double left = total_steps_ > step ? static_cast<double>(total_steps_ - step) : 0;
  return {.job = job_,
          .step = step,
          .total_steps = total_steps_,
          .values = std::move(values),
          .jets_per_second = jets_per_second_,
          .eta_seconds = steps_per_second_ > 0 ? left / steps_per_second_ : 0,
          .wait_share = waited_seconds / total};
}

}  // namespace tessera
