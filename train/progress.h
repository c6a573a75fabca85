// Progress of a running training, for whoever shows it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tessera {

/// A named number, as metrics.jsonl and eval.json store it.
struct Metric {
  std::string name;
  double value = 0;
};
using Metrics = std::vector<Metric>;

/// What an observer learns after each step.
struct Progress {
  std::string job;
  std::uint64_t step = 0, total_steps = 0;
  Metrics values;              ///< of this step
  double jets_per_second = 0;  ///< smoothed over about the last 10 s
  double eta_seconds = 0;
  double wait_share = 0;  ///< of the time since the start spent waiting for data
};
using Observer = std::function<void(const Progress&)>;

/// Turns steps into rates and the time left.
class ProgressMeter {
 public:
  ProgressMeter(std::string job, std::uint64_t first_step, std::uint64_t total_steps);
  /// After each step: jets in it, what it measured, Batcher::waited_seconds().
  Progress update(std::uint64_t step, std::uint64_t jets, Metrics values, double waited_seconds);

 private:
  using Clock = std::chrono::steady_clock;
  std::string job_;
  std::uint64_t total_steps_, last_step_;
  Clock::time_point start_, last_;
  double jets_per_second_ = 0, steps_per_second_ = 0;
};

}  // namespace tessera
