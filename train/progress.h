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

/// Mean rate over about the last 10 s: amounts and seconds decay alike, so that a short first
/// interval weighs no more than its seconds.
class Rate {
 public:
  void add(double amount, double seconds);
  /// 0 before anything was added.
  [[nodiscard]] double per_second() const { return seconds_ > 0 ? amount_ / seconds_ : 0; }

 private:
  double amount_ = 0, seconds_ = 0;
};

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
  Rate jets_, steps_;
};

}  // namespace tessera
