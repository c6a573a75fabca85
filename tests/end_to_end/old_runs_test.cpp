// A run directory that version 0.1.0 (revision ff7ee41) wrote, committed under tests/fixtures/old_run:
// later versions go on in it, with the same bits, and answer with its models. It came from preset
// tiny on the repository's sample with the settings of kSettings.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "support/command_line.h"
#include "train/hash.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSettings =
    " -c tiny --quiet run.threads=1 tokenizer.steps=6 tokenizer.width=8 tokenizer.codes=16 "
    "pretrain.steps=6 backbone.width=16 backbone.blocks=1 finetune.steps=4 finetune.evaluations=1 "
    "finetune.train_jets=60 finetune.tasks=tau-pt,tag finetune.methods= "
    "finetune.strategies=scratch,full generate.jets=20 ";

class OldRuns : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::copy(TESSERA_SOURCE_DIR "/tests/fixtures/old_run", run_, fs::copy_options::recursive);
  }
  Outcome verb(const std::string& name, const std::string& more = "") {
    return run_tessera(dir_, name + kSettings + "run.directory=" + run_.string() + " " + more);
  }
  /// Hash by relative path of every file that holds a result.
  std::map<std::string, std::string> results() {
    std::map<std::string, std::string> hashes;
    for (const auto& entry : fs::recursive_directory_iterator(run_)) {
      const std::string extension = entry.path().extension().string();
      if (extension == ".safetensors" || extension == ".csv" || extension == ".h5") {
        hashes[fs::relative(entry.path(), run_).string()] = hash_file(entry.path());
      }
    }
    return hashes;
  }
  TempDir dir_;
  fs::path run_ = dir_.path() / "run";
};

TEST_F(OldRuns, AreDoneAndKeepTheirBits) {
  const auto before = results();
  for (const char* name : {"train-tokenizer", "pretrain", "generate"}) {
    const Outcome r = verb(name);
    EXPECT_EQ(r.code, 0) << name << ": " << r.err;
    EXPECT_NE(r.err.find("done before, kept"), std::string::npos) << name << ": " << r.err;
  }
  const Outcome tables = verb("finetune");
  EXPECT_EQ(tables.code, 0) << tables.err;
  EXPECT_EQ(results(), before);
}

TEST_F(OldRuns, TakeAStudyMore) {
  const Outcome r = verb("finetune", "finetune.strategies=scratch,full,frozen");
  ASSERT_EQ(r.code, 0) << r.err;
  const std::string table = read_text(run_ / "table.csv");
  EXPECT_NE(table.find("tag,tessera,frozen,60,accuracy,"), std::string::npos) << table;
  EXPECT_NE(table.find("tag,tessera,full,60,accuracy,0.105,0,1\n"), std::string::npos) << table;
}

TEST_F(OldRuns, RefuseOtherData) {
  const Outcome r = verb("train-tokenizer", "data.jets=apps/sample/tau");
  EXPECT_EQ(r.code, 64) << r.err;
  EXPECT_NE(r.err.find("made with other settings"), std::string::npos) << r.err;
}

TEST_F(OldRuns, HaveModelsThatAnswer) {
  const std::string finetuned = (run_ / "finetune").string();
  const Outcome tag = run_tessera(
      dir_, "evaluate --json " + finetuned + "/tag__tessera__full__seed0/model apps/sample/jets");
  ASSERT_EQ(tag.code, 0) << tag.err;
  EXPECT_NEAR(nlohmann::json::parse(tag.out).at("metrics").at("accuracy"), 0.105, 0.003);
  const Outcome pt = run_tessera(
      dir_, "predict " + finetuned + "/tau-pt__tessera__full__seed0/model apps/sample/tau");
  EXPECT_EQ(pt.code, 0) << pt.err;
  EXPECT_EQ(run_tessera(dir_, "verify " + run_.string()).code, 0);
}

}  // namespace
}  // namespace tessera
