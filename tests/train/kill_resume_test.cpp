// kill -9 at random times: data order, weights and metrics of the resumed run equal those of an
// uninterrupted one.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "core/rng.h"
#include "support/jet_files.h"
#include "support/temp_dir.h"
#include "train/batcher.h"
#include "train/checkpoint.h"
#include "train/metrics_log.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSteps = 80, kSaveEvery = 7;

// A training whose weights depend on every jet, feature and step before: any slip of the resume
// shows in them.
class ToyRun {
 public:
  ToyRun(const fs::path& data, const fs::path& run)
      : run_(run), store_(run), data_(std::make_shared<const Dataset>(data)) {}

  void go() {
    std::uint64_t step = 0;
    Cursor cursor;
    std::vector<float> weights(64, 1.0F);
    std::optional<std::uint64_t> resume;
    if (const auto loaded = store_.load_latest()) {
      step = loaded->step;
      resume = step;
      cursor = {std::stoull(loaded->content.state.at("epoch")),
                std::stoull(loaded->content.state.at("batch"))};
      weights = loaded->content.model.at("w").to_vector<float>();
    }
    MetricsLog log(run_ / "metrics.jsonl", resume);
    Batcher batches(data_, {}, {.jets = 24, .block = 16, .window = 2, .prefetch = 2}, 9, {},
                    cursor);
    while (step < kSteps) {
      const double loss = update(weights, batches.next());
      log.write(++step, {{"loss", loss}});
      if (step % kSaveEvery == 0 || step == kSteps) {
        log.sync();
        save(step, batches.cursor(), weights);
      }
    }
  }

 private:
  static double update(std::vector<float>& w, const Batch& b) {
    double loss = 0;
    for (std::size_t i = 0; i < b.rows.core.size(); ++i) {
      float& v = w[(i + b.ids[i % b.ids.size()]) % w.size()];
      v = 0.99F * v + 0.01F * b.rows.core[i];
      loss += static_cast<double>(v);
    }
    return loss;
  }
  void save(std::uint64_t step, Cursor cursor, const std::vector<float>& weights) {
    Checkpoint c;
    c.model["w"] = Tensor::from(weights, {64});
    c.state = {{"epoch", std::to_string(cursor.epoch)}, {"batch", std::to_string(cursor.batch)}};
    store_.save(step, c);
  }
  fs::path run_;
  CheckpointStore store_;
  std::shared_ptr<const Dataset> data_;
};

// Runs in a child process that is killed after `microseconds`; true if it came to the end before.
bool run_and_kill(const fs::path& data, const fs::path& run, useconds_t microseconds) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ToyRun(data, run).go();
      ::_exit(0);
    } catch (...) {
      ::_exit(1);
    }
  }
  ::usleep(microseconds);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) != 0);
  return WIFEXITED(status);
}

TEST(KillResume, KilledAtRandomTimesTheRunEndsWithTheSameBits) {
  const TempDir dir;
  const fs::path data = dir.path() / "data";
  fs::create_directory(data);
  write_dataset(data, {random_lengths(150, 1), random_lengths(61, 2)});
  ToyRun(data, dir.path() / "whole").go();
  const std::string want = read_text(dir.path() / "whole/metrics.jsonl");
  ASSERT_EQ(std::count(want.begin(), want.end(), '\n'), static_cast<std::ptrdiff_t>(kSteps));

  Rng rng(17);
  int kills = 0;
  useconds_t patience = 20'000;
  while (kills < 2000 &&
         !run_and_kill(data, dir.path() / "killed", static_cast<useconds_t>(rng.below(patience)))) {
    ++kills;
    patience += 500;  // so that slow machines come to the end, too
  }
  RecordProperty("kills", kills);
  EXPECT_GE(kills, 3);
  EXPECT_EQ(read_text(dir.path() / "killed/metrics.jsonl"), want);
  EXPECT_EQ(read_text(dir.path() / "killed/checkpoints/step-000080/model.safetensors"),
            read_text(dir.path() / "whole/checkpoints/step-000080/model.safetensors"));
}

}  // namespace
}  // namespace tessera
