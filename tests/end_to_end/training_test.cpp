// The trainings as a user relies on them: the same bits for any number of threads and after kill -9
// at any moment. Everything runs in child processes: a fork after the thread pool began would copy
// it without its threads.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "core/parallel.h"
#include "kernels/matmul/precision.h"
#include "support/temp_dir.h"
#include "support/tiny_jobs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

using namespace tiny;

using Job = std::string (*)(const Data&, const RunFiles&);

/// In a child process, so that its thread pool is its own; the hash of the final state, or empty if
/// it was killed after `microseconds` (0 = never).
std::string in_child(Job job, const fs::path& data, const fs::path& run, int threads,
                     useconds_t microseconds = 0) {
  const fs::path result = run.string() + ".hash";
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      set_num_threads(threads);
      const Data d(data);
      std::ofstream(result) << job(d, files(run));
      ::_exit(0);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      ::_exit(1);
    }
  }
  if (microseconds > 0) {
    ::usleep(microseconds);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  return WIFEXITED(status) ? read_text(result) : "";
}

struct Case {
  const char* name;
  Job job;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class Training : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (std::string(GetParam().name).ends_with("bf16") && bf16_unit() == Bf16Unit::none) {
      GTEST_SKIP() << "this CPU multiplies no bf16 (CPUID)";
    }
  }
};

TEST_P(Training, TwoHundredStepsGiveTheSameBitsForAnyNumberOfThreads) {
  const TempDir dir;
  const std::string want = in_child(GetParam().job, dir.path() / "d1", dir.path() / "t1", 1);
  ASSERT_FALSE(want.empty());
  for (const int threads : {2, 3, 8}) {
    const auto name = std::to_string(threads);
    EXPECT_EQ(
        in_child(GetParam().job, dir.path() / ("d" + name), dir.path() / ("t" + name), threads),
        want)
        << threads;
  }
}

TEST_P(Training, KilledTwentyTimesAtRandomItEndsWithTheSameBitsAndMetrics) {
  const TempDir dir;
  const auto start = std::chrono::steady_clock::now();
  const std::string want = in_child(GetParam().job, dir.path() / "d", dir.path() / "whole", 2);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - start);
  ASSERT_FALSE(want.empty());

  Rng rng(17);
  int kills = 0;
  for (int run = 0; kills < 20; ++run) {  // a run that comes to its end is followed by another
    const fs::path killed = dir.path() / ("killed" + std::to_string(run));
    std::string got;
    while (got.empty()) {
      const auto patience =
          static_cast<useconds_t>(1 + rng.below(static_cast<std::uint64_t>(whole.count()) / 2));
      got = in_child(GetParam().job, dir.path() / "e", killed, 1 + kills % 3, patience);
      kills += got.empty() ? 1 : 0;
      fs::remove_all(dir.path() / "e");
    }
    EXPECT_EQ(got, want) << run;
    EXPECT_EQ(read_text((killed / "metrics.jsonl").string()),
              read_text((dir.path() / "whole/metrics.jsonl").string()))
        << run;
  }
  RecordProperty("kills", kills);
}

// With evaluations on the way, and an end before the last step.
std::string selected_tokenizer(const Data& data, const RunFiles& where) {
  return tokenizer_bits(data, where, {.evaluations = 40, .patience = 8});
}
std::string selected_pretrain(const Data& data, const RunFiles& where) {
  return pretrain_bits(data, where, {.evaluations = 40, .patience = 3});
}

std::string pretrain_bf16(const Data& data, const RunFiles& where) {
  const PrecisionScope products(Precision::bf16);
  return pretrain_bits(data, where);
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, Training,
    ::testing::Values(
        Case{"tokenizer", [](const Data& d, const RunFiles& f) { return tokenizer_bits(d, f); }},
        Case{"pretrain", [](const Data& d, const RunFiles& f) { return pretrain_bits(d, f); }},
        Case{"selected_tokenizer", selected_tokenizer},
        Case{"selected_pretrain", selected_pretrain}, Case{"finetune", finetune_bits},
        Case{"pretrain_bf16", pretrain_bf16}),
    [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace tessera
