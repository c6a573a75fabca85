// What the training verbs share: directories of the stages, what is done before, progress on the
// console.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "apps/command.h"
#include "apps/model_config.h"
#include "apps/stage_settings.h"

namespace tessera::apps {

/// What a stage tells about itself when it is finished.
struct StageResult {
  double seconds = 0;
  std::string weights;  ///< hash of the model's weights; empty without a model
};

/// A stage's directory RUN/NAME: settings.txt, metrics.jsonl and checkpoints/ while it trains,
/// model/ when it is trained, and done.json when all that it writes is there and durable. The steps
/// of a stage are
///   if (stage.done()) return;
///   if (!stage.trained()) { train with stage.files(card); stage.keep(card, model); }
///   write the products from the model; stage.finish({seconds, hash});
class Stage {
 public:
  /// Makes the directory and holds it to the settings (apps/stage_settings.h). From now on a signal
  /// ends the program with exit code 75, if the stage has a model: nothing is lost. `products`: the
  /// files that the stage writes, relative to the run directory; model_product() stands for its
  /// model. Throws Error(usage) where the settings differ, or where the directory holds anything
  /// and
  /// `--resume never` is asked, and Error(missing) where a dataset of `use` has no manifest.
  Stage(const RunConfig& config, const Options& options, const std::string& name,
        const std::string& settings, DataUse use, std::vector<std::string> products);
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string model() const { return directory_ + "/model"; }
  /// Whether all that the stage writes is there and as it was written: by done.json, or for a run
  /// of an older version by reading the files. A damaged file is named on stderr. If true, run.json
  /// holds the stage afterwards.
  [[nodiscard]] bool done() const;
  /// Whether the model is there, whole. A damaged one is named on stderr and set aside.
  [[nodiscard]] bool trained() const;
  /// For the job: checkpoints and metrics here; from now on a signal ends the training with a
  /// checkpoint.
  [[nodiscard]] RunFiles files(const std::string& card) const;
  /// Stores the trained model. From now on a signal ends the program at once again.
  void keep(const std::string& card, const Module& model) const;
  /// The last step, after the products were written: done.json, run.json; drops the checkpoints.
  void finish(const StageResult& result) const;

 private:
  [[nodiscard]] bool adopt() const;
  void record(const StageResult& result, const std::string& ended) const;

  RunConfig config_;
  std::string name_, directory_, settings_;
  std::vector<std::string> products_;
  bool has_model_;
};

/// The file of a stage's model that vouches for the others.
inline std::string model_product(const std::string& stage) {
  return stage + "/model/MANIFEST.json";
}

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

/// The file as a whole, durably, or not at all (FileIo::replace_text); makes its directory.
void write_text(const std::string& path, const std::string& text);

void write_if_changed(const std::string& path, const std::string& text);

/// One line on stderr: a small file of the run is damaged and is made again.
void warn_damaged(const std::string& path);

}  // namespace tessera::apps
