#include "train/progress.h"

#include <algorithm>
#include <cmath>

namespace tessera {

void Rate::add(double amount, double seconds) {
  constexpr double kWindow = 10;  // seconds
  const double old = std::exp(-seconds / kWindow);
  amount_ = old * amount_ + amount;
  seconds_ = old * seconds_ + seconds;
}

ProgressMeter::ProgressMeter(std::string job, std::uint64_t first_step, std::uint64_t total_steps)
    : job_(std::move(job)),
      total_steps_(total_steps),
      last_step_(first_step),
      start_(Clock::now()),
      last_(start_) {}

Progress ProgressMeter::update(std::uint64_t step, std::uint64_t jets, Metrics values,
                               double waited_seconds) {
  const Clock::time_point now = Clock::now();
  const double elapsed = std::max(std::chrono::duration<double>(now - last_).count(), 1e-9);
  const double total = std::max(std::chrono::duration<double>(now - start_).count(), 1e-9);
  jets_.add(static_cast<double>(jets), elapsed);
  steps_.add(static_cast<double>(step - last_step_), elapsed);
  last_ = now;
  last_step_ = step;
  const double left = total_steps_ > step ? static_cast<double>(total_steps_ - step) : 0;
  return {.job = job_,
          .step = step,
          .total_steps = total_steps_,
          .values = std::move(values),
          .jets_per_second = jets_.per_second(),
          .eta_seconds = steps_.per_second() > 0 ? left / steps_.per_second() : 0,
          .wait_share = waited_seconds / total};
}

}  // namespace tessera
