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
  ToyRun(const fs::path& data, const fs::path& run, FileIo io = {})
      : run_(run), store_(run, {}, std::move(io)), data_(std::make_shared<const Dataset>(data)) {}

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

// Runs in a child process. `io` may kill it inside a save; after `microseconds`, unless 0, it is
// killed wherever it is. True if it came to the end before.
bool run_and_kill(const fs::path& data, const fs::path& run, const FileIo& io,
                  useconds_t microseconds) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ToyRun(data, run, io).go();
      ::_exit(0);
    } catch (...) {
      ::_exit(1);
    }
  }
  if (microseconds > 0) {
    ::usleep(microseconds);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) != 0);
  return WIFEXITED(status);
}

// Kills the process before its n-th operation on checkpoints.
FileIo deadly(std::uint64_t n) {
  FileIo io;
  io.before_call = [n, call = std::uint64_t{0}](const IoCall&) mutable {
    if (call++ == n) {
      ::raise(SIGKILL);
    }
    return 0;
  };
  return io;
}

// Steps of the metrics file that the newest checkpoint does not hold.
std::uint64_t lost_steps(const fs::path& run) {
  if (!fs::exists(run / "metrics.jsonl")) {
    return 0;
  }
  const std::string text = read_text(run / "metrics.jsonl");
  const auto lines = static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n'));
  const auto saved = CheckpointStore(run).steps();
  const std::uint64_t newest = saved.empty() ? 0 : saved.back();
  return lines > newest ? lines - newest : 0;
}

struct Kills {
  int anywhere = 0, in_saves = 0;
};

// One run to its end, through as many deaths as it takes.
void run_through_kills(const fs::path& data, const fs::path& run, Rng& rng, Kills& kills) {
  for (useconds_t patience = 20'000;; patience += 1000) {  // slow machines come to the end, too
    const bool in_save = rng.below(2) == 0;
    const bool finished =
        in_save ? run_and_kill(data, run, deadly(rng.below(60)), 0)
                : run_and_kill(data, run, {}, 1 + static_cast<useconds_t>(rng.below(patience)));
    if (finished) {
      return;
    }
    ++(in_save ? kills.in_saves : kills.anywhere);
    ASSERT_LE(lost_steps(run), kSaveEvery);
  }
}

TEST(KillResume, KilledAHundredTimesTheRunEndsWithTheSameBits) {
  const TempDir dir;
  const fs::path data = dir.path() / "data", whole = dir.path() / "whole";
  fs::create_directory(data);
  write_dataset(data, {random_lengths(150, 1), random_lengths(61, 2)});
  ToyRun(data, whole).go();
  const std::string want = read_text(whole / "metrics.jsonl");
  ASSERT_EQ(std::count(want.begin(), want.end(), '\n'), static_cast<std::ptrdiff_t>(kSteps));

  Rng rng(17);
  Kills kills;
  for (int n = 0; kills.anywhere + kills.in_saves < 100; ++n) {
    const fs::path run = dir.path() / std::to_string(n);
    run_through_kills(data, run, rng, kills);
    EXPECT_EQ(read_text(run / "metrics.jsonl"), want);
    for (const char* file : {"model.safetensors", "state.json", "MANIFEST.json"}) {
      EXPECT_EQ(read_text(run / "checkpoints/step-000080" / file),
                read_text(whole / "checkpoints/step-000080" / file));
    }
  }
  EXPECT_GE(10 * kills.in_saves, 3 * (kills.in_saves + kills.anywhere));
}

}  // namespace
}  // namespace tessera
