// Data as it is in real hands, from the command line: columns that some files lack, test jets of
// one class, empty splits, odd names, weights that are not numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "support/command_line.h"
#include "support/small_sample.h"
#include "train/checkpoint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

const fs::path kSample = TESSERA_SOURCE_DIR "/apps/sample";

/// What is changed in a file of a split before it is written.
using Change = std::function<void(NativeJets& jets, const std::string& split, bool second)>;

/// The first jets of every file of the sample's taus or jets, each as two files, the second of
/// which may lack what the first has.
void write_changed(const fs::path& from, const fs::path& to, const Change& change,
                   std::uint64_t jets = 150) {
  fs::create_directories(to);
  std::map<std::string, std::vector<std::string>> splits;
  for (const auto& [split, files] : read_manifest(from).splits) {
    for (const FileEntry& entry : files) {
      const NativeFile file(from / entry.file);
      for (const bool second : {false, true}) {
        const std::uint64_t begin = second ? jets : 0;
        NativeJets columns = native_columns(file.read(begin, begin + jets), file.classes());
        change(columns, split, second);
        splits[split].push_back(split + (second ? "_background" : "_signal") +
                                std::to_string(splits[split].size()) + ".h5");
        write_native_jets(to / splits[split].back(), std::move(columns));
      }
    }
  }
  write_manifest(to, make_manifest(to, "changed", splits));
}

template <class T>
std::vector<T>& column(NativeJets& jets, const char* path) {
  return std::get<std::vector<T>>(jets.columns.at(path));
}

/// A tokenizer and a backbone after two steps, made once, which every test copies.
class UnluckyData : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    small_ = new std::string(small_sample(*shared_));
    const std::string run = "--quiet run.directory=" + (shared_->path() / "run").string();
    for (const char* verb : {"train-tokenizer", "pretrain"}) {
      const Outcome made =
          run_tessera(*shared_, fmt::format("{} {} {} {}", verb, run, *small_, kTiny));
      ASSERT_EQ(made.code, 0) << made.err;
    }
  }
  static void TearDownTestSuite() {
    delete shared_;
    delete small_;
  }
  void SetUp() override { fs::copy(shared_->path() / "run", run_, fs::copy_options::recursive); }

  Outcome tessera(const std::string& arguments) { return run_tessera(dir_, arguments); }
  Outcome step(const std::string& verb, const std::string& data, const std::string& more = "") {
    return tessera(fmt::format("{} --quiet run.directory={} {} {} {}", verb, run_.string(), data,
                               kTiny, more));
  }
  /// Fine-tuning of one task on changed data, from scratch and from the backbone.
  Outcome finetune(const std::string& task, const Change& change) {
    const std::string set = task == "tag" ? "jets" : "tau";
    write_changed(kSample / set, data_, change);
    return step("finetune", "data.jets=" + data_.string() + " data.taus=" + data_.string(),
                "--from " + run_.string() + " finetune.tasks=" + task);
  }
  [[nodiscard]] std::string text(const std::string& file) const { return read_text(run_ / file); }
  [[nodiscard]] fs::path model(const std::string& study) const {
    return run_ / "finetune" / (study + "__seed0") / "model";
  }

  static constexpr const char* kTiny =
      "tokenizer.steps=2 tokenizer.batch=16 tokenizer.width=16 tokenizer.blocks=1 "
      "tokenizer.codes=64 pretrain.steps=2 pretrain.batch=8 backbone.width=16 backbone.blocks=1 "
      "backbone.heads=2 finetune.steps=2 finetune.batch=16 finetune.seeds=1 "
      "finetune.train_jets=60 finetune.evaluations=1 finetune.methods=deepsets "
      "finetune.strategies=scratch,full generate.jets=20";
  static inline TempDir* shared_ = nullptr;
  static inline std::string* small_ = nullptr;
  TempDir dir_;
  fs::path run_ = dir_.path() / "run", data_ = dir_.path() / "data";
};

void expect_one_line(const Outcome& o, int code, const std::vector<std::string>& words) {
  EXPECT_EQ(o.code, code) << o.err;
  EXPECT_EQ(std::ranges::count(o.err, '\n'), 1) << o.err;
  for (const std::string& word : words) {
    EXPECT_NE(o.err.find(word), std::string::npos) << word << ": " << o.err;
  }
}

void expect_no_nan(const std::string& what, const std::string& text) {
  for (const char* bad : {"nan", "inf ", "inf,", "null"}) {
    EXPECT_EQ(text.find(bad), std::string::npos) << what << " holds " << bad << ": " << text;
  }
}

// Before: signal 11.
TEST_F(UnluckyData, AMissingColumnIsNamedBeforeAnythingIsTrained) {
  struct Case {
    const char *task, *column, *split;
  };
  for (const auto& [task, name, split] :
       {Case{"tau-id", "label/tau_dm", "train"}, Case{"tau-dm", "label/tau_dm", "val"},
        Case{"tau-pt", "truth/vis_py", "test"}, Case{"tag", "label/class", "test"}}) {
    const Outcome o = finetune(task, [&](NativeJets& jets, const std::string& s, bool second) {
      if (s == split && second) {
        jets.columns.erase(name);
        if (name == std::string("label/class")) jets.classes.clear();
      }
    });
    expect_one_line(o, 65, {std::string(split) + "_background", std::string("'") + name + "'"});
    EXPECT_FALSE(fs::exists(run_ / "finetune")) << task;
    fs::remove_all(data_);
  }
}

// Before: the evaluation threw, and the model was never stored, again at each start.
TEST_F(UnluckyData, ATestSplitOfOneClassGivesAModelAndTablesWithoutWhatItDoesNotDefine) {
  const Outcome o = finetune("tau-id", [](NativeJets& jets, const std::string& split, bool) {
    if (split == "test") std::ranges::fill(column<std::int8_t>(jets, "label/tau_dm"), -1);
  });
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("auc is left out"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("no jet is a tau"), std::string::npos) << o.err;
  EXPECT_TRUE(fs::exists(model("tau-id__tessera__full") / "MANIFEST.json"));
  EXPECT_EQ(text("table.csv"), "task,method,strategy,n_train,metric,value,error,seeds\n");
  EXPECT_TRUE(text("differences.csv").starts_with("task,method,"));
  expect_no_nan("eval", text("eval/tau-id__tessera__full__seed0.json"));
  const Outcome evaluated =
      tessera("evaluate --json " + model("tau-id__tessera__full").string() + " " + data_.string());
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  EXPECT_NE(evaluated.err.find("auc is not defined: no jet is a tau"), std::string::npos);
  const auto json = nlohmann::json::parse(evaluated.out);
  EXPECT_EQ(json.at("undefined").at("auc"), "no jet is a tau");
  EXPECT_TRUE(json.at("metrics").empty());
  expect_no_nan("evaluate --json", evaluated.out);
}

TEST_F(UnluckyData, ATestSplitWithoutAJetThatTakesPartGivesAModelToo) {
  const Outcome o = finetune("tau-pt", [](NativeJets& jets, const std::string& split, bool) {
    if (split == "test") std::ranges::fill(column<std::int8_t>(jets, "label/tau_dm"), 16);
  });
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("response is left out"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("no jet takes part"), std::string::npos) << o.err;
  EXPECT_TRUE(fs::exists(model("tau-pt__deepsets__scratch") / "MANIFEST.json"));
  const Outcome evaluated =
      tessera("evaluate " + model("tau-pt__deepsets__scratch").string() + " " + data_.string() +
              " --against " + model("tau-pt__tessera__full").string());
  EXPECT_EQ(evaluated.code, 0) << evaluated.err;
  expect_no_nan("evaluate", evaluated.out);
}

TEST_F(UnluckyData, TrainingAndValidationNeedAJetThatTakesPart) {
  for (const char* bad : {"train", "val"}) {
    const Outcome o = finetune("tau-dm", [&](NativeJets& jets, const std::string& split, bool) {
      if (split == bad) std::ranges::fill(column<std::int8_t>(jets, "label/tau_dm"), -1);
    });
    expect_one_line(o, 65, {"tau-dm", bad == std::string("val") ? "validation" : "training"});
    fs::remove_all(data_);
  }
}

// As after a kill between the model and its evaluation, or with files lost.
TEST_F(UnluckyData, WhatIsMissingOfAFinishedStudyIsMadeAgainFromItsModel) {
  const Change none = [](NativeJets&, const std::string&, bool) {};
  ASSERT_EQ(finetune("tau-id", none).code, 0);
  const std::string study = "eval/tau-id__tessera__full__seed0";
  const std::string evaluation = study + ".json", answers = study + ".safetensors";
  const std::vector<std::string> outputs{evaluation, answers, "table.csv", "differences.csv"};
  std::map<std::string, std::string> before;
  for (const std::string& file : outputs) before[file] = text(file);
  const std::string weights = text("finetune/tau-id__tessera__full__seed0/model/model.safetensors");
  for (const auto& lost : {std::vector{evaluation}, std::vector{answers}, outputs}) {
    for (const std::string& file : lost) fs::remove(run_ / file);
    fs::remove_all(data_);
    const Outcome again = finetune("tau-id", none);
    ASSERT_EQ(again.code, 0) << again.err;
    for (const std::string& file : outputs) EXPECT_EQ(text(file), before[file]) << file;
    EXPECT_EQ(text("finetune/tau-id__tessera__full__seed0/model/model.safetensors"), weights);
  }
}

TEST_F(UnluckyData, AHeldOutSplitOfEmptyJetsLeavesMeasuresUndefined) {
  write_changed(kSample / "jets", data_, [](NativeJets& jets, const std::string& split, bool) {
    if (split != "val") return;
    std::ranges::fill(jets.offsets, 0);
    for (auto& [path, values] : jets.columns) {
      if (path.starts_with("pf/")) std::visit([](auto& v) { v.clear(); }, values);
    }
  });
  fs::remove_all(run_);
  const std::string data = "data.unlabelled=jets data.jets=" + data_.string();
  const Outcome tokens = step("train-tokenizer", data);
  ASSERT_EQ(tokens.code, 0) << tokens.err;
  EXPECT_NE(tokens.out.find("MSE not defined"), std::string::npos) << tokens.out;
  expect_no_nan("train-tokenizer", tokens.out + text("eval/tokenizer.json"));
  const Outcome pretrained = step("pretrain", data);
  ASSERT_EQ(pretrained.code, 0) << pretrained.err;
  EXPECT_NE(pretrained.out.find("margin not defined"), std::string::npos) << pretrained.out;
  expect_no_nan("pretrain", pretrained.out + text("eval/pretrain.json"));
  const Outcome generated = step("generate", data);
  ASSERT_EQ(generated.code, 0) << generated.err;
  EXPECT_NE(generated.err.find("not defined: no held-out jet"), std::string::npos) << generated.err;
  expect_no_nan("generate", generated.out + text("eval/generation.json"));
  EXPECT_EQ(
      step("train-tokenizer", data, "tokenizer.evaluations=1 run.directory=" + run_.string() + "2")
          .code,
      65);
}

// Before: exit code 70 with "json.exception", or a file that JSON readers refuse.
TEST_F(UnluckyData, OddNamesOfFoldersGiveReadableRecordsOrOneLine) {
  for (const char* name : {"two words", "a,b \"c\"", "tab\there", "line\nbreak", "caf\xc3\xa9"}) {
    const fs::path odd = dir_.path() / name;
    fs::create_directories(odd);
    fs::copy(shared_->path() / "small/jets", odd / "jets", fs::copy_options::recursive);
    const std::string run = (odd / "run").string();
    const Outcome o =
        tessera(fmt::format("train-tokenizer --quiet {} 'run.directory={}' 'data.jets={}'", kTiny,
                            run, (odd / "jets").string()));
    ASSERT_EQ(o.code, 0) << name << ": " << o.err;
    const auto record = nlohmann::json::parse(read_text(run + "/run.json"));
    EXPECT_EQ(record.at("data").begin().key(), (odd / "jets").string());
    const Outcome again =
        tessera(fmt::format("train-tokenizer --quiet {} 'run.directory={}' 'data.jets={}'", kTiny,
                            run, (odd / "jets").string()));
    EXPECT_EQ(again.code, 0) << name << ": " << again.err;
  }
  const Outcome bytes = step("train-tokenizer", "'data.jets=caf\xe9'");
  expect_one_line(bytes, 64, {"data.jets"});
}

/// A copy of a stored model in which one weight is not a number.
void spoil(const fs::path& model, float value) {
  Checkpoint c = read_checkpoint(model);
  const auto weight =
      std::ranges::find_if(c.model, [](const auto& t) { return t.second.dtype() == DType::f32; });
  weight->second.span<float>()[0] = value;
  fs::remove_all(model);
  write_checkpoint(model, 0, c);
}

// Before: evaluate never ended, predict wrote nan with exit code 0.
TEST_F(UnluckyData, AModelWithAWeightThatIsNoNumberIsRefusedByEveryVerb) {
  const std::string taus = (shared_->path() / "small/tau").string();
  ASSERT_EQ(step("finetune", *small_, "finetune.tasks=tau-id").code, 0);
  const fs::path good = model("tau-id__deepsets__scratch"), bad = model("tau-id__tessera__full");
  const fs::path odd = dir_.path() / "caf\xe9";  // Latin-1, as old disks have it
  fs::copy(taus, odd);
  const Outcome named = tessera("evaluate --json " + good.string() + " " + odd.string());
  ASSERT_EQ(named.code, 0) << named.err;
  EXPECT_TRUE(nlohmann::json::accept(named.out)) << named.out;
  spoil(bad, NAN);
  for (const std::string& arguments :
       {"evaluate " + bad.string() + " " + taus, "predict " + bad.string() + " " + taus,
        "evaluate " + good.string() + " " + taus + " --against " + bad.string()}) {
    expect_one_line(tessera(arguments), 65, {bad.string(), "tensor '"});
  }
  spoil(run_ / "pretrain/model", INFINITY);
  for (const char* verb : {"generate", "finetune"}) {
    expect_one_line(step(verb, *small_,
                         "run.directory=" + run_.string() +
                             (verb == std::string("finetune") ? "2 --from " : "") +
                             (verb == std::string("finetune") ? run_.string() : "")),
                    65, {"pretrain/model", "tensor '"});
  }
  spoil(run_ / "tokenizer/model", -INFINITY);
  fs::remove_all(run_ / "pretrain");
  expect_one_line(step("pretrain", *small_), 65, {"tokenizer/model", "tensor '"});
}

}  // namespace
}  // namespace tessera
