// metrics.jsonl, the source of truth of a run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "train/progress.h"

namespace tessera {

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

  /// Whether the log held a line of the step to resume from; if not, lines were lost.
  [[nodiscard]] bool whole() const { return whole_; }
  void write(std::uint64_t step, const Metrics& metrics);
  /// fsync, of the file and once of its name, before a checkpoint of this step is committed.
  void sync();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  bool whole_ = true, name_is_durable_ = false;
};

}  // namespace tessera
