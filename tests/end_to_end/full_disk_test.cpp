// Every writer on a disk that takes no more from the k-th change on, for every k until the command
// is through untouched: exit code 74 and no file under its final name, or success; then the same
// command completes, and what it leaves has the bits of an undisturbed run. The disk fills up in
// support/faulty_files.c; at every third k that one call fails alone, as a passing error does.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "support/command_line.h"
#include "support/small_sample.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Bytes of files by their path in the working folder.
using Files = std::map<std::string, std::string>;

class FullDisk : public ::testing::Test {
 protected:
  TempDir dir_{memory_directory()};
  fs::path work_ = dir_.path() / "work", before_ = dir_.path() / "before";
  fs::path counter_ = dir_.path() / "counter";

  void SetUp() override { fs::create_directory(before_); }

  /// A run of the executable in which the `at`-th counted call fails, if any.
  Outcome run(const std::string& arguments, std::uint64_t at = 0, bool once = false) {
    std::ofstream(counter_, std::ios::binary) << std::string(8, '\0');
    return run_tessera(dir_, arguments, 0,
                       fmt::format("export FAULT_DIRECTORY={} FAULT_COUNTER={} FAULT_AT={} "
                                   "FAULT_ONCE={:d} LD_PRELOAD={};",
                                   work_.string(), counter_.string(), at, once, TESSERA_FAULTS));
  }
  [[nodiscard]] std::uint64_t counted() const {
    std::uint64_t count = 0;
    std::memcpy(&count, read_text(counter_).data(), sizeof count);
    return count;
  }

  /// Runs commands that need no disturbance; the others begin with what these leave.
  void prepare(const std::vector<std::string>& commands) {
    fs::create_directories(work_);
    for (const std::string& arguments : commands) {
      const Outcome done = run(arguments);
      ASSERT_EQ(done.code, 0) << arguments << ": " << done.err;
    }
    fs::remove_all(before_);
    fs::rename(work_, before_);
  }
  void start_over() {
    fs::remove_all(work_);
    fs::copy(before_, work_, fs::copy_options::recursive);
  }
  [[nodiscard]] Files files(const std::vector<std::string>& names) const {
    Files found;
    for (const std::string& name : names) {
      if (fs::exists(work_ / name)) {
        found[name] = read_text(work_ / name);
      }
    }
    return found;
  }
  /// The stages that run.json tells of.
  [[nodiscard]] std::set<std::string> recorded() const {
    std::set<std::string> stages;
    if (fs::exists(work_ / "run.json")) {
      for (const auto& [name, stage] :
           nlohmann::json::parse(read_text(work_ / "run.json")).at("stages").items()) {
        stages.insert(name);
      }
    }
    return stages;
  }

  /// `results`: what the command is for, by name.
  void check_every_write(const std::string& arguments, const std::vector<std::string>& results) {
    start_over();
    const Files old = files(results);
    const Outcome undisturbed = run(arguments);
    ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
    const Files want = files(results);
    const std::set<std::string> stages = recorded();
    ASSERT_EQ(want.size(), results.size());
    const std::uint64_t calls = counted();
    EXPECT_GE(calls, 5U * results.size()) << "create, write, fsync, close and rename of each";
    for (std::uint64_t k = 1; k <= calls && !HasFailure(); ++k) {
      SCOPED_TRACE(fmt::format("call {} of {}", k, calls));
      check_write(arguments, results, k, old, want);
      EXPECT_EQ(recorded(), stages);
    }
  }

 private:
  void check_write(const std::string& arguments, const std::vector<std::string>& results,
                   std::uint64_t k, const Files& old, const Files& want) {
    start_over();
    const Outcome full = run(arguments, k, k % 3 == 0);
    EXPECT_GE(counted(), k);
    if (full.code == 0) {
      EXPECT_EQ(files(results), want) << "it said that all is well";
    } else {
      EXPECT_EQ(full.code, 74) << full.err;
      EXPECT_NE(full.err.find("No space left on device"), std::string::npos) << full.err;
      EXPECT_NE(full.err.find(work_.string()), std::string::npos) << full.err;
    }
    for (const auto& [name, bytes] : files(results)) {
      const auto before = old.find(name);
      EXPECT_TRUE(bytes == want.at(name) || (before != old.end() && bytes == before->second))
          << name << " is neither whole nor absent";
    }
    const Outcome again = run(arguments);
    EXPECT_EQ(again.code, 0) << full.err << again.err;
    EXPECT_TRUE(files(results) == want) << "other bits than an undisturbed run";
    for (const auto& entry : fs::recursive_directory_iterator(work_)) {
      EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
    }
  }
};

TEST_F(FullDisk, Simulate) {
  check_every_write(
      "simulate --quiet --file tests/fixtures/ee_tautau.particles --source 21:0:6 -o " +
          (work_ / "train.h5").string(),
      {"train.h5"});
}

TEST_F(FullDisk, Manifest) {
  write_head_of(TESSERA_SOURCE_DIR "/apps/sample/tau", before_, 3);
  fs::remove(before_ / "manifest.json");
  check_every_write("inspect --write-manifest " + work_.string(), {"manifest.json"});
}

/// The verbs of a run, as small as they can be.
class FullDiskOfARun : public FullDisk {
 protected:
  std::string data_ = small_sample(dir_, 12);

  std::string verb(const std::string& name, const std::string& more = "") const {
    return name + " --quiet -c tiny run.directory=" + work_.string() + " " + data_ +
           " run.threads=1 run.checkpoint_every=1 tokenizer.steps=2 tokenizer.batch=4"
           " tokenizer.width=8 tokenizer.heads=2 tokenizer.codes=16 backbone.width=8"
           " backbone.heads=2 backbone.blocks=1 pretrain.steps=2 pretrain.warmup=1 pretrain.batch=4"
           " generate.jets=3 finetune.steps=2 finetune.batch=4 finetune.seeds=1"
           " finetune.train_jets=12 finetune.evaluations=1 " +
           more;
  }
  std::string finetune() const {
    return verb("finetune",
                "finetune.tasks=tau-pt finetune.methods=deepsets"
                " finetune.strategies=full run.checkpoint_every=1000");
  }
  static std::vector<std::string> with_model(const std::string& stage,
                                             std::vector<std::string> results) {
    for (const char* file : {"model.safetensors", "config.json", "MANIFEST.json"}) {
      results.push_back(stage + "/model/" + file);
    }
    return results;
  }
};

TEST_F(FullDiskOfARun, TrainTokenizer) {
  check_every_write(verb("train-tokenizer"), with_model("tokenizer", {"eval/tokenizer.json"}));
}

TEST_F(FullDiskOfARun, Pretrain) {
  prepare({verb("train-tokenizer")});
  check_every_write(verb("pretrain"), with_model("pretrain", {"eval/pretrain.json"}));
}

TEST_F(FullDiskOfARun, Generate) {
  prepare({verb("train-tokenizer"), verb("pretrain")});
  check_every_write(verb("generate"), {"generate/jets.h5", "eval/generation.json"});
}

TEST_F(FullDiskOfARun, FinetuneAndItsTables) {
  prepare({verb("train-tokenizer"), verb("pretrain")});
  const std::string study = "tau-pt__tessera__full__seed0";
  check_every_write(finetune(), with_model("finetune/" + study,
                                           {"eval/" + study + ".json", "table.csv",
                                            "eval/" + study + ".safetensors", "differences.csv"}));
}

TEST_F(FullDiskOfARun, AnswersAndMetricsOfAModel) {
  prepare({verb("train-tokenizer"), verb("pretrain"), finetune()});
  const std::string model = (work_ / "finetune/tau-pt__tessera__full__seed0/model").string() + " " +
                            (dir_.path() / "small/tau").string() + " -o " +
                            (work_ / "out").string();
  check_every_write("predict " + model, {"out"});
  check_every_write("evaluate " + model, {"out"});
}

TEST_F(FullDiskOfARun, Import) {
  check_every_write(
      "import --quiet -c omnijet-alpha run.directory=" + work_.string() +
          " tokenizer.width=16 tokenizer.blocks=2 tokenizer.heads=4 tokenizer.codes=64"
          " backbone.width=32 backbone.blocks=2 backbone.heads=4"
          " --tokenizer tests/golden/omnijet_tokenizer.ckpt",
      with_model("tokenizer", {}));
}

}  // namespace
}  // namespace tessera
