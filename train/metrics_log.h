// metrics.jsonl, the source of truth of a run, and progress events for whoever shows them.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tessera {

/// Named numbers of one step, in the order to be written.
using Metrics = std::vector<std::pair<std::string, double>>;

/// {"step":12,"loss":0.5}: shortest decimals that read back equal, so that files compare bit for
/// bit; NaN and infinities become null.
std::string metrics_line(std::uint64_t step, const Metrics& metrics);

/// Appends one line per call with one write(2), so a killed run leaves at most one torn line.
class MetricsLog {
 public:
  /// Opens or creates. A torn last line and all lines beyond `resume_step` are cut (no resume:
  /// everything), so that the file equals that of an uninterrupted run. Throws Error(io).
  explicit MetricsLog(std::filesystem::path path, std::optional<std::uint64_t> resume_step = {});
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void write(std::uint64_t step, const Metrics& metrics);
  /// fsync, before a checkpoint of this step is committed.
  void sync();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// What an observer learns of a running training.
struct Progress {
  std::uint64_t step = 0, total_steps = 0;
  double loss = 0;
  double jets_per_second = 0;  ///< smoothed over about the last 10 s
  double eta_seconds = 0;
  double wait_share = 0;  ///< of the time since the start spent waiting for data
};
using ProgressObserver = std::function<void(const Progress&)>;

/// Turns steps into Progress.
class ProgressMeter {
 public:
  ProgressMeter(std::uint64_t first_step, std::uint64_t total_steps);
  /// After each step: jets in it, its loss, Batcher::waited_seconds().
  Progress update(std::uint64_t step, std::uint64_t jets, double loss, double waited_seconds);

 private:
  using Clock = std::chrono::steady_clock;
  std::uint64_t total_steps_, last_step_;
  Clock::time_point start_, last_;
  double jets_per_second_ = 0, steps_per_second_ = 0;
};

}  // namespace tessera
