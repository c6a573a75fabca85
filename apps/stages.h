// What the training verbs share: directories of the stages, what is done before, progress on the
// console.
#pragma once

#include <chrono>

#include "apps/command.h"
#include "apps/model_config.h"

namespace tessera::apps {

/// A stage's directory RUN/NAME with settings.txt, metrics.jsonl, checkpoints/ while it trains and
/// model/ when it is done.
class Stage {
 public:
  /// Makes the directory and writes the settings it depends on. Throws Error(usage), naming the
  /// first differing line, if the directory was made with other settings, and where the directory
  /// holds anything and `--resume never` is asked.
  Stage(const RunConfig& config, const Options& options, const std::string& name,
        const std::string& settings);
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string model() const { return directory_ + "/model"; }
  [[nodiscard]] bool done() const;
  /// For the job: checkpoints and metrics here, leaving on a signal.
  [[nodiscard]] RunFiles files(const std::string& card) const;
  /// Stores the finished model, then drops the checkpoints.
  void finish(const std::string& card, const Module& model) const;

 private:
  std::string directory_;
  std::int64_t checkpoint_every_;
  bool stop_on_failed_save_;
  std::int64_t most_skipped_;
};

/// Seconds since it was made.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Progress on stderr: redrawn on a terminal, otherwise a line every ten seconds.
Observer console_observer(const Options& options);

/// Writes through a temporary name and a rename.
void write_text(const std::string& path, const std::string& text);

/// True once SIGINT, SIGTERM or SIGUSR1 came; a second SIGINT ends the process at once.
bool stop_requested();
void catch_signals();

}  // namespace tessera::apps
