// A run directory with the verbs at their smallest useful sizes, for tests of what the files of a
// run survive.
#pragma once

#include <fmt/format.h>

#include <fstream>
#include <string>

#include "support/command_line.h"
#include "support/small_sample.h"

namespace tessera {

/// Runs verbs of one run on the first jets of the repository's sample.
class SmallRun {
 public:
  SmallRun() { small_sample(dir_); }

  [[nodiscard]] const TempDir& dir() const { return dir_; }
  [[nodiscard]] std::string jets() const { return (dir_.path() / "small/jets").string(); }
  [[nodiscard]] std::string taus() const { return (dir_.path() / "small/tau").string(); }
  [[nodiscard]] std::string run() const { return (dir_.path() / "run").string(); }

  /// The arguments of a verb; what comes last in `more` wins.
  [[nodiscard]] std::string arguments(const std::string& verb, const std::string& more = "") const {
    return verb + " --quiet run.directory=" + run() + " data.jets=" + jets() +
           " data.taus=" + taus() +
           " tokenizer.steps=8 tokenizer.batch=16 tokenizer.width=16 tokenizer.codes=64"
           " backbone.width=16 backbone.blocks=1 backbone.heads=2"
           " pretrain.steps=6 pretrain.batch=8 run.checkpoint_every=3"
           " finetune.steps=6 finetune.batch=16 finetune.seeds=1 finetune.train_jets=60"
           " finetune.evaluations=1 finetune.tasks=tag,tau-pt finetune.methods=deepsets"
           " finetune.strategies=scratch,frozen generate.jets=20 " +
           more;
  }
  [[nodiscard]] Outcome call(const std::string& verb, const std::string& more = "",
                             const std::string& prefix = "") const {
    return run_tessera(dir_, arguments(verb, more), 0, prefix);
  }

 private:
  TempDir dir_;
};

inline constexpr const char* kChain[] = {"train-tokenizer", "pretrain", "generate", "finetune"};

}  // namespace tessera
