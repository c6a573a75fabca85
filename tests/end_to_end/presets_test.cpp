// The presets from the command line: their parameter counts, their costs, and a few steps of every
// stage on the first jets of the repository's sample.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "support/command_line.h"
#include "support/small_sample.h"

namespace tessera {
namespace {

class Presets : public ::testing::Test {
 protected:
  TempDir dir_;
  std::string run_ = (dir_.path() / "run").string();

  /// `more` overrides the preset's settings.
  Outcome verb(const std::string& name, const std::string& preset, const std::string& more) {
    return run_tessera(dir_, fmt::format("{} -c {} --quiet run.directory={} finetune.seeds=1 {}",
                                         name, preset, run_, more));
  }
  void run_stages(const std::string& preset, const std::string& settings) {
    const std::string more = small_sample(dir_) + " " + settings;
    for (const char* stage : {"train-tokenizer", "pretrain", "finetune", "generate"}) {
      const Outcome r = verb(stage, preset, more);
      ASSERT_EQ(r.code, 0) << stage << ": " << r.err;
    }
  }
  nlohmann::json counts(const std::string& preset) {
    return nlohmann::json::parse(run_tessera(dir_, "inspect --json --preset " + preset).out);
  }
  /// The last line of a stage's metrics.jsonl.
  nlohmann::json last_step(const std::string& stage) {
    const std::string text = read_text(run_ + "/" + stage + "/metrics.jsonl");
    const std::size_t before = text.rfind('\n', text.size() - 2);
    return nlohmann::json::parse(text.substr(before == std::string::npos ? 0 : before + 1));
  }
  std::vector<std::string> lines(const std::string& file) {
    std::istringstream in(read_text(run_ + "/" + file));
    std::vector<std::string> all;
    for (std::string line; std::getline(in, line);) {
      all.push_back(line);
    }
    return all;
  }
};

// OmniJet-alpha's were instantiated from the published classes.
TEST_F(Presets, HaveTheSpecifiedParameterCounts) {
  const auto alpha = counts("omnijet-alpha");
  EXPECT_EQ(alpha.at("tokenizer"), 833551);
  EXPECT_EQ(alpha.at("backbone"), 4464640);
  EXPECT_EQ(alpha.at("generative_total"), 6570498);
  const auto tiny = counts("tiny");
  EXPECT_EQ(tiny.at("tokenizer"), 15631);
  EXPECT_EQ(tiny.at("backbone"), 101952);
  EXPECT_EQ(tiny.at("pretrain_total"), 205514);
  const auto small = counts("tessera-s");
  EXPECT_EQ(small.at("tokenizer"), 210831);
  EXPECT_EQ(small.at("backbone"), 1194880);
  EXPECT_EQ(small.at("pretrain_total"), 1742986);
  EXPECT_EQ(run_tessera(dir_, "inspect --preset omnijet-beta").code, 64);
}

TEST_F(Presets, TinyRunsEveryStageMethodAndStrategyOverTwoSubsets) {
  run_stages("tiny",
             "tokenizer.steps=20 pretrain.steps=10 finetune.steps=4 finetune.tasks=tau-pt,tag "
             "finetune.train_jets=[60,120] finetune.evaluations=1 generate.jets=20");
  // two baselines of tau-pt and one of tag; ten studies on two subsets, with two metrics and one
  EXPECT_EQ(lines("table.csv").size(), 1U + 3 + 2 * 10 * 2 + 1 * 10 * 2);
  const auto multipliers = lines("label_multiplier.csv");
  EXPECT_EQ(multipliers[0], "task,method,strategy,n_train,metric,value,bound,label_multiplier");
  EXPECT_EQ(multipliers.size(), 1U + 2 * 6 * 2) << "six strategies beside scratch, two tasks";
  const auto config = lines("finetune/tag__tessera__lora-n60__seed0/settings.txt");
  EXPECT_FALSE(config.empty());
}

TEST_F(Presets, TheLearningRateIsChosenOnValidationFromTheSameGridForEveryStudy) {
  const std::string few =
      small_sample(dir_) +
      " tokenizer.steps=5 pretrain.steps=5 finetune.steps=6 finetune.tasks=tag "
      "finetune.methods=deepsets finetune.strategies=scratch finetune.train_jets=100 "
      "finetune.validation=subset finetune.lr_grid=[1e-5,3e-2]";
  for (const char* stage : {"train-tokenizer", "pretrain", "finetune"}) {
    ASSERT_EQ(verb(stage, "tiny", few).code, 0) << stage;
  }
  for (const char* study : {"tag__deepsets__scratch__seed0", "tag__tessera__scratch__seed0"}) {
    const auto e = nlohmann::json::parse(read_text(run_ + "/eval/" + study + ".json"));
    const auto& tried = e.at("lr_grid");
    ASSERT_EQ(tried.size(), 2U);
    const bool second = tried[1].at("validation_loss") < tried[0].at("validation_loss");
    EXPECT_EQ(e.at("lr"), tried[second ? 1 : 0].at("lr")) << study;
    EXPECT_EQ(e.at("validation_loss"), tried[second ? 1 : 0].at("validation_loss"));
    EXPECT_EQ(e.at("train_jets"), 100);
  }
}

TEST_F(Presets, OmnijetAlphaTrainsAFewStepsAndLogsBothLosses) {
  run_stages("omnijet-alpha",
             "data.max_particles=48 tokenizer.steps=2 tokenizer.batch=8 pretrain.steps=2 "
             "pretrain.batch=16 finetune.steps=2 finetune.batch=4 finetune.train_jets=60 "
             "finetune.evaluations=1 finetune.methods=pfn finetune.strategies=full,lora "
             "generate.jets=4 generate.slots=4");
  const auto tokenizer = last_step("tokenizer"), pretraining = last_step("pretrain");
  // jets of fewer than 48 particles leave slots that only the published losses count
  EXPECT_NE(tokenizer.at("loss"), tokenizer.at("clean_loss"));
  EXPECT_NE(pretraining.at("loss"), pretraining.at("ntp"));
  const std::string table = read_text(run_ + "/table.csv");
  EXPECT_NE(table.find("tag,omnijet,lora,60,accuracy,"), std::string::npos) << table;
}

TEST_F(Presets, TesseraSTrainsAFewSteps) {
  run_stages("tessera-s",
             "data.max_particles=12 tokenizer.steps=2 tokenizer.batch=8 pretrain.steps=2 "
             "pretrain.batch=4 finetune.steps=2 finetune.batch=4 finetune.train_jets=60 "
             "finetune.evaluations=1 finetune.tasks=tau-id finetune.methods=part "
             "finetune.strategies=lpft finetune.lr_grid=[] generate.jets=4");
  EXPECT_EQ(lines("table.csv").size(), 1U + 2 + 2 * 2);
}

TEST_F(Presets, ADryRunPrintsSettingsParametersMemoryAndStepTime) {
  const Outcome r =
      verb("pretrain", "omnijet-alpha", "--dry-run data.max_particles=12 pretrain.batch=4");
  ASSERT_EQ(r.code, 0) << r.err;
  for (const char* part : {"kind = \"gpt\"", "6570498 parameters", "ms/step", "MB peak memory"}) {
    EXPECT_NE(r.out.find(part), std::string::npos) << part << "\n" << r.out;
  }
}

TEST_F(Presets, HelpOfAVerbNamesTheKeysThatItReadsAndThePresets) {
  const std::string help = run_tessera(dir_, "pretrain --help").out;
  for (const char* key : {"omnijet-alpha", "pretrain.lr = ", "backbone.kind", "run.compat"}) {
    EXPECT_NE(help.find(key), std::string::npos) << key;
  }
  EXPECT_EQ(help.find("finetune.lr"), std::string::npos);
}

TEST_F(Presets, CombinationsThatHaveNoModelAreRefused) {
  const Outcome contract = verb("pretrain", "tiny", "data.contract=alpha3");
  EXPECT_EQ(contract.code, 64);
  EXPECT_NE(contract.err.find("backbone.kind"), std::string::npos) << contract.err;
  EXPECT_EQ(verb("pretrain", "tiny", "run.compat=reference").code, 64);
  EXPECT_EQ(verb("train-tokenizer", "tiny", "tokenizer.schedule=linear").code, 64);
}

}  // namespace
}  // namespace tessera
