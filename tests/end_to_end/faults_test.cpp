// What a run does when disk, checkpoint or numbers fail, from the command line: exit codes, one
// line that names the file, and the same command that goes on.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "support/command_line.h"
#include "support/jet_files.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class Faults : public ::testing::Test {
 protected:
  TempDir dir_;
  std::string run_ = (dir_.path() / "run").string();
  std::string log_ = run_ + "/tokenizer/metrics.jsonl";

  Outcome train(const std::string& more = "", const std::string& prefix = "") {
    return run_tessera(dir_,
                       "train-tokenizer --quiet run.directory=" + run_ +
                           " tokenizer.steps=24 tokenizer.batch=16 run.checkpoint_every=5 " + more,
                       0, prefix);
  }
};

// Files may not grow beyond some blocks of 512 bytes: what a quota does. SIGXFSZ is ignored, so the
// write fails as it does on a full disk.
std::string limit(int blocks) { return "trap '' XFSZ; ulimit -f " + std::to_string(blocks) + ";"; }

TEST_F(Faults, ADiskThatTakesNoMoreEndsWithExitCode74AndTheSameCommandGoesOn) {
  const Outcome full = train("", limit(12));
  EXPECT_EQ(full.code, 74) << full.err;
  EXPECT_NE(full.err.find(run_), std::string::npos) << full.err;
  EXPECT_NE(full.err.find("errno 27"), std::string::npos) << full.err;
  EXPECT_EQ(std::count(full.err.begin(), full.err.end(), '\n'), 1) << full.err;
  const std::string before = read_text(log_);
  EXPECT_TRUE(before.empty() || before.back() == '\n') << before;
  const Outcome on = train();
  EXPECT_EQ(on.code, 0) << on.err;

  const std::string once = read_text(log_);
  fs::remove_all(run_);
  EXPECT_EQ(train().code, 0);
  EXPECT_EQ(read_text(log_), once);
}

TEST_F(Faults, OnSaveFailIsStopOrWarn) {
  const Outcome wrong = train("run.on_save_fail=maybe");
  EXPECT_EQ(wrong.code, 64) << wrong.err;
  EXPECT_NE(wrong.err.find("run.on_save_fail"), std::string::npos) << wrong.err;
}

TEST_F(Faults, DamagedDataEndsWithExitCode65AndMissingDataWith66) {
  const fs::path data = dir_.path() / "data";
  fs::create_directory(data);
  write_dataset(data, {random_lengths(20, 1)});
  const std::string keys = "data.jets=" + data.string() + " data.taus=" + data.string();
  const Outcome split = train(keys);
  EXPECT_EQ(split.code, 66) << split.err;  // it has no validation split
  EXPECT_NE(split.err.find("'val'"), std::string::npos) << split.err;
  std::ofstream(data / "train_0.h5", std::ios::app) << "x";
  const Outcome damaged = train(keys);
  EXPECT_EQ(damaged.code, 65) << damaged.err;
  EXPECT_NE(damaged.err.find("train_0.h5: expected"), std::string::npos) << damaged.err;
  fs::remove(data / "train_0.h5");
  EXPECT_EQ(train(keys).code, 66);
  fs::remove(data / "manifest.json");
  std::ofstream(data / "train_0.h5") << "x";
  const Outcome missing = train(keys);
  EXPECT_EQ(missing.code, 66);
  EXPECT_NE(missing.err.find("tessera inspect --write-manifest"), std::string::npos) << missing.err;
}

// JetClass has more files than most systems let a process open at a time.
TEST_F(Faults, ADatasetMayHaveMoreFilesThanAProcessMayOpen) {
  const fs::path data = dir_.path() / "many";
  fs::create_directory(data);
  for (std::uint64_t i = 0; i < 80; ++i) {
    const char* split = i < 70 ? "train" : i < 75 ? "val" : "test";
    write_jets(data / fmt::format("{}_{}.h5", split, i), random_jets({3, 5, 4}, 100 * i));
  }
  const std::string few = "ulimit -n 40;";
  const Outcome listed = run_tessera(dir_, "inspect --write-manifest " + data.string(), 0, few);
  ASSERT_EQ(listed.code, 0) << listed.err;
  EXPECT_EQ(std::count(listed.out.begin(), listed.out.end(), '\n'), 80);
  EXPECT_EQ(run_tessera(dir_, "verify " + data.string(), 0, few).code, 0);
  const std::string keys =
      "data.unlabelled=jets data.jets=" + data.string() + " data.taus=" + data.string();
  const Outcome trained = train(keys, few);
  ASSERT_EQ(trained.code, 0) << trained.err;
  const std::string once = read_text(log_);
  fs::remove_all(run_);
  EXPECT_EQ(train(keys).code, 0);
  EXPECT_EQ(read_text(log_), once) << "the same bits with all files open";
}

}  // namespace
}  // namespace tessera
