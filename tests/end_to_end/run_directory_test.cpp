// What a run directory survives: other data under the same path, damaged files, processes side by
// side, signals of batch systems.
#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "support/run_directory.h"
#include "train/checkpoint.h"
#include "train/hash.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class RunDirectory : public ::testing::Test {
 protected:
  SmallRun small_;
  std::string run_ = small_.run();

  void finish_chain(const std::string& more = "") {
    for (const char* verb : kChain) {
      const Outcome o = small_.call(verb, more);
      ASSERT_EQ(o.code, 0) << verb << ": " << o.err;
    }
  }
  /// The dataset in `directory` becomes one of other jets under the same names.
  static void replace_data(const fs::path& directory) {
    const fs::path other = directory.string() + ".other";
    write_head_of(directory, other, 140);
    fs::remove_all(directory);
    fs::rename(other, directory);
  }
  [[nodiscard]] std::string text(const std::string& file) const {
    return read_text(run_ + "/" + file);
  }
};

TEST_F(RunDirectory, OtherDataUnderTheSamePathIsRefusedByEveryVerb) {
  finish_chain();
  const std::string table = text("table.csv");
  replace_data(small_.jets());
  for (const char* verb : kChain) {
    const Outcome o = small_.call(verb);
    EXPECT_EQ(o.code, 64) << verb << ": " << o.err;
    EXPECT_NE(o.err.find("data.jets = '" + small_.jets() + "' holds other jets"), std::string::npos)
        << verb << ": " << o.err;
    EXPECT_EQ(std::ranges::count(o.err, '\n'), 1) << o.err;
  }
  EXPECT_EQ(text("table.csv"), table);
  const Outcome seeds = small_.call("finetune", "finetune.seeds=2 finetune.tasks=tag");
  EXPECT_EQ(seeds.code, 64) << "two seeds of two datasets are no study";
  EXPECT_EQ(small_.call("finetune", "finetune.tasks=tau-pt").code, 0)
      << "a task that reads the other dataset goes on";
  replace_data(small_.taus());
  EXPECT_EQ(small_.call("finetune", "finetune.tasks=tau-pt").code, 64);
}

TEST_F(RunDirectory, ATokenizerOfOtherDataUnderTheSamePathIsNotBuiltUpon) {
  ASSERT_EQ(small_.call("train-tokenizer").code, 0);
  replace_data(small_.taus());
  const Outcome o = small_.call("pretrain");
  EXPECT_EQ(o.code, 64) << o.err;
  EXPECT_NE(o.err.find("holds other jets than stage tokenizer of this run"), std::string::npos)
      << o.err;
  EXPECT_EQ(small_.call("pretrain", "data.unlabelled=jets").code, 0) << "it reads no taus";
}

TEST_F(RunDirectory, TheSameDataIsAcceptedHoweverItsPathIsSpelt) {
  finish_chain();
  fs::rename(small_.jets(), small_.jets() + ".moved");
  fs::create_directory_symlink(small_.jets() + ".moved", small_.dir().path() / "link");
  const std::string relative = fs::relative(small_.jets() + ".moved", TESSERA_SOURCE_DIR);
  for (const std::string& path :
       {small_.jets() + ".moved", small_.jets() + ".moved/", small_.dir().path().string() + "/link",
        (small_.dir().path() / "small/./jets.moved").string(), relative}) {
    for (const char* verb : kChain) {
      const Outcome o = small_.call(verb, "data.jets=" + path);
      EXPECT_EQ(o.code, 0) << verb << " " << path << ": " << o.err;
    }
  }
}

// The settings as versions before wrote them: paths of the datasets, in the order of the keys.
void make_old(const std::string& run, const std::string& stage, const std::string& jets,
              const std::string& taus) {
  const std::string path = run + "/" + stage + "/settings.txt";
  std::istringstream in(read_text(path));
  std::string old;
  for (std::string line; std::getline(in, line);) {
    if (line.find(" holds ") != std::string::npos) {
      continue;
    }
    if (line.starts_with("data.contract")) {
      old += "data.jets = \"" + jets + "\"\ndata.taus = \"" + taus + "\"\n";
    }
    old += line + "\n";
  }
  std::ofstream(path, std::ios::binary) << old;
  fs::remove(run + "/" + stage + "/done.json");
  fs::remove(run + "/" + stage + "/training.json");
}

TEST_F(RunDirectory, RunsOfOlderVersionsGoOnWhereTheirDataIsWhatRunJsonRecorded) {
  finish_chain();
  const std::string record = text("run.json");
  const auto age = [&] {
    for (const char* stage : {"tokenizer", "pretrain", "generate"}) {
      make_old(run_, stage, small_.jets(), small_.taus());
    }
    for (const auto& entry : fs::directory_iterator(run_ + "/finetune")) {
      make_old(run_, "finetune/" + entry.path().filename().string(), small_.jets(), small_.taus());
    }
  };
  age();
  for (const char* verb : kChain) {
    const Outcome o = small_.call(verb);
    EXPECT_EQ(o.code, 0) << verb << ": " << o.err;
    EXPECT_EQ(o.err.find("WARNING"), std::string::npos) << o.err;
  }
  EXPECT_EQ(text("run.json"), record) << "nothing was computed again";
  age();
  fs::remove(run_ + "/run.json");
  EXPECT_EQ(small_.call("train-tokenizer").code, 0) << "without a record the path tells";
  age();
  std::ofstream(run_ + "/run.json") << record;
  replace_data(small_.jets());
  for (const char* verb : kChain) {
    EXPECT_EQ(small_.call(verb).code, 64) << verb;
  }
}

TEST_F(RunDirectory, AnEmptyChoiceIsNotEverything) {
  ASSERT_EQ(small_.call("train-tokenizer", "data.unlabelled=jets").code, 0);
  const std::string unlabelled = "data.unlabelled=jets pretrain.classes=";
  const Outcome unknown = small_.call("pretrain", unlabelled + "'[\"QDC\"]'");
  EXPECT_EQ(unknown.code, 64) << unknown.err;
  EXPECT_NE(unknown.err.find("the nearest one is 'QCD'"), std::string::npos) << unknown.err;
  EXPECT_EQ(small_.call("pretrain", unlabelled + "'[\"QCD\",\"Hbbb\"]'").code, 64);
  EXPECT_EQ(small_.call("pretrain", unlabelled + "'[\"\"]'").code, 64);
  for (const char* none :
       {"finetune.tasks=", "finetune.methods= finetune.strategies=", "finetune.train_jets=[]"}) {
    const Outcome o = small_.call("finetune", none);
    EXPECT_EQ(o.code, 64) << none << ": " << o.err;
    EXPECT_FALSE(fs::exists(run_ + "/table.csv")) << none;
  }
}

TEST_F(RunDirectory, AClassWithoutATrainingJetIsNamed) {
  const fs::path own = small_.dir().path() / "own";
  fs::create_directory(own);
  std::map<std::string, std::vector<std::string>> splits;
  for (const char* split : {"train", "val", "test"}) {
    const NativeFile file(fs::path(small_.jets()) / (std::string(split) + ".h5"));
    NativeJets jets = native_columns(file.read(0, 60), {"A", "B", "C"});
    auto& labels = std::get<std::vector<std::uint8_t>>(jets.columns.at("label/class"));
    for (std::size_t i = 0; i < labels.size(); ++i) {
      labels[i] = static_cast<std::uint8_t>(i % 2);  // no C
    }
    write_native_jets(own / (std::string(split) + ".h5"), std::move(jets));
    splits[split].push_back(std::string(split) + ".h5");
  }
  write_manifest(own, make_manifest(own, "own", splits));
  const std::string data = "data.unlabelled=jets data.jets=" + own.string();
  ASSERT_EQ(small_.call("train-tokenizer", data).code, 0);
  for (const char* classes : {"[\"C\"]", "[\"A\",\"C\"]"}) {
    const Outcome o = small_.call("pretrain", data + " pretrain.classes='" + classes + "'");
    EXPECT_EQ(o.code, 65) << o.err;
    EXPECT_NE(o.err.find("'C'"), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("A, B, C"), std::string::npos) << o.err;
  }
  EXPECT_EQ(small_.call("pretrain", data + " pretrain.classes='[\"A\"]'").code, 0);
}

TEST_F(RunDirectory, ADamagedSmallFileIsNamedAndMadeAgain) {
  finish_chain();
  const std::string study = "tag__deepsets__scratch__seed0";
  const std::map<std::string, const char*> files = {
      {"run.json", "train-tokenizer"},
      {"config.toml", ""},
      {"tokenizer/settings.txt", "train-tokenizer"},
      {"tokenizer/done.json", "train-tokenizer"},
      {"eval/tokenizer.json", "train-tokenizer"},
      {"pretrain/settings.txt", "pretrain"},
      {"eval/pretrain.json", "pretrain"},
      {"generate/settings.txt", "generate"},
      {"generate/jets.h5", "generate"},
      {"eval/generation.json", "generate"},
      {"finetune/" + study + "/settings.txt", "finetune"},
      {"eval/" + study + ".json", "finetune"},
      {"eval/" + study + ".safetensors", "finetune"},
      {"table.csv", ""},
      {"differences.csv", ""}};
  for (const char* damage : {"", "\0\0\0\0", "half of it"}) {
    for (const auto& [file, verb] : files) {
      const std::string before = text(file);
      std::ofstream(run_ + "/" + file, std::ios::binary)
          << (damage[0] == 'h' ? before.substr(0, before.size() / 2)
                               : std::string(damage, damage[0] == 0 ? 0 : 4));
      const Outcome o = small_.call(verb[0] != 0 ? verb : "finetune");
      ASSERT_EQ(o.code, 0) << file << ": " << o.err;
      if (verb[0] != 0) {
        EXPECT_NE(o.err.find(file + ": damaged"), std::string::npos) << file << ": " << o.err;
      }
      if (file.find("done.json") == std::string::npos && file != "run.json") {
        EXPECT_EQ(text(file), before) << file;
      }
    }
  }
  EXPECT_EQ(nlohmann::json::parse(text("run.json")).at("stages").size(), 3 + 2 * 3U);
}

/// Starts a verb and waits until `file` is there.
pid_t start(const SmallRun& small, const std::string& arguments, const std::string& file) {
  const std::string err = (small.dir().path() / "started").string();
  const std::string line = "cd " TESSERA_SOURCE_DIR " && exec " TESSERA_EXECUTABLE " " + arguments +
                           " >/dev/null 2>" + err;
  const char* argv[] = {"sh", "-c", line.c_str(), nullptr};
  pid_t child = 0;
  ::posix_spawnp(&child, "sh", nullptr, nullptr, const_cast<char**>(argv), environ);
  for (int i = 0; i < 3000 && !fs::exists(file); ++i) {
    ::usleep(10'000);
  }
  return child;
}

/// Sends a child signals, one after the other, and gives how it ended.
int end_by(pid_t child, const std::vector<int>& signals) {
  for (const int signal : signals) {
    ::kill(child, signal);
    ::usleep(5'000);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(RunDirectory, AStoppedTrainingGoesOnWithDamagedFilesAndGivesTheSameBits) {
  const std::string steps = "tokenizer.steps=120";
  ASSERT_EQ(small_.call("train-tokenizer", steps).code, 0);
  const std::string model = "tokenizer/model/model.safetensors", want = text(model);
  for (const char* file : {"settings.txt", "metrics.jsonl", "checkpoints/latest"}) {
    fs::remove_all(run_);
    const int status = end_by(start(small_, small_.arguments("train-tokenizer", steps),
                                    run_ + "/tokenizer/checkpoints/latest"),
                              {SIGTERM});
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 75) << status;
    for (const char* damaged : {file, "../config.toml"}) {
      std::ofstream(run_ + "/tokenizer/" + damaged, std::ios::trunc).close();
    }
    const Outcome on = small_.call("train-tokenizer", steps);
    EXPECT_EQ(on.code, 0) << file << ": " << on.err;
    EXPECT_EQ(on.err.find("delete"), std::string::npos) << on.err;
    EXPECT_EQ(text(model), want) << file;
  }
  fs::remove_all(run_ + "/tokenizer/model/config.json");
  const Outcome again = small_.call("train-tokenizer", steps);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.err.find("set aside"), std::string::npos) << again.err;
  EXPECT_EQ(text(model), want);
}

// Takes files off the list of a MANIFEST.json, whose own hash then fits again.
void unlist(const fs::path& directory, const std::set<std::string>& files) {
  auto j = nlohmann::ordered_json::parse(read_text(directory / "MANIFEST.json"));
  auto kept = nlohmann::ordered_json::array();
  for (const auto& entry : j.at("files")) {
    if (!files.contains(entry.at("name").get<std::string>())) {
      kept.push_back(entry);
    }
  }
  j["files"] = kept;
  j.erase("self");
  j["self"] = hash_text(j.dump());
  std::ofstream(directory / "MANIFEST.json", std::ios::binary) << j.dump(1) << "\n";
}

TEST_F(RunDirectory, WhatTheManifestDoesNotListIsNotLoaded) {
  ASSERT_EQ(small_.call("train-tokenizer").code, 0);
  const fs::path model = run_ + "/tokenizer/model", copy = small_.dir().path() / "copy";
  fs::copy(model, copy);
  const auto restore = [&] {
    fs::remove_all(model);
    fs::copy(copy, model);
  };
  const auto expect_refused = [&](const std::string& file) {
    for (const Outcome& o :
         {run_tessera(small_.dir(), "verify " + run_), small_.call("pretrain")}) {
      EXPECT_EQ(o.code, 65) << file << ": " << o.err;
      EXPECT_NE(o.err.find(file), std::string::npos) << o.err;
    }
    restore();
  };
  for (const std::set<std::string>& files : std::vector<std::set<std::string>>{
           {"config.json", "model.safetensors"}, {"model.safetensors"}, {"config.json"}}) {
    unlist(model, files);
    std::fstream(model / "model.safetensors", std::ios::in | std::ios::out).seekp(300).put('Z');
    expect_refused(files.size() == 2 ? "MANIFEST.json" : *files.begin());
    unlist(model, files);
    for (const std::string& file : files) {
      fs::remove(model / file);
    }
    EXPECT_EQ(small_.call("pretrain").code, 65) << "neither listed nor there";
    restore();
  }
  fs::copy(model / "model.safetensors", model / "ema.safetensors");
  expect_refused("ema.safetensors");
  const fs::path empty = small_.dir().path() / "empty";
  fs::create_directory(empty);
  write_manifest(empty, {.name = "empty", .splits = {{"train", {}}}, .columns = {}});
  EXPECT_EQ(run_tessera(small_.dir(), "verify " + empty.string()).code, 65);
  EXPECT_EQ(
      small_.call("train-tokenizer", "run.directory=" + run_ + "2 data.jets=" + empty.string())
          .code,
      65);
}

TEST_F(RunDirectory, StudiesSideBySideAreAllInRunJson) {
  ASSERT_EQ(small_.call("train-tokenizer").code, 0);
  ASSERT_EQ(small_.call("pretrain").code, 0);
  std::vector<std::thread> calls;
  std::map<std::string, Outcome> outcomes;
  std::mutex mutex;
  for (const char* task : {"tag", "tau-pt", "tau-id", "tau-dm"}) {
    calls.emplace_back([&, task] {
      const TempDir scratch;
      const Outcome o =
          run_tessera(scratch, small_.arguments("finetune", std::string("finetune.tasks=") + task));
      const std::lock_guard lock(mutex);
      outcomes[task] = o;
    });
  }
  for (std::thread& call : calls) {
    call.join();
  }
  for (const auto& [task, o] : outcomes) {
    EXPECT_EQ(o.code, 0) << task << ": " << o.err;
  }
  EXPECT_EQ(nlohmann::json::parse(text("run.json")).at("stages").size(), 2 + 4 * 3U);
  const std::string first_row = text("table.csv").substr(text("table.csv").find('\n') + 1);
  const std::string task = first_row.substr(0, first_row.find(','));
  EXPECT_NE(text("differences.csv").find("\n" + task + ","), std::string::npos)
      << "both tables are of one call";
}

TEST_F(RunDirectory, TheWarningsOfBatchSystemsEndATrainingWithACheckpoint) {
  const std::string long_one = small_.arguments("train-tokenizer", "tokenizer.steps=100000");
  const std::vector<std::vector<int>> cases = {{SIGTERM},          {SIGINT},
                                               {SIGHUP},           {SIGUSR1, SIGTERM},
                                               {SIGUSR2, SIGUSR2}, {SIGXCPU, SIGXCPU, SIGXCPU}};
  for (const std::vector<int>& signals : cases) {
    fs::remove_all(run_);
    const int status =
        end_by(start(small_, long_one, run_ + "/tokenizer/checkpoints/latest"), signals);
    ASSERT_TRUE(WIFEXITED(status)) << signals[0] << ": signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 75) << signals[0];
    EXPECT_NE(read_text(small_.dir().path() / "started").find("the same command goes on"),
              std::string::npos);
  }
}

TEST_F(RunDirectory, AVerbWithoutACheckpointDiesByTheSignalAndLeavesNoHalfFile) {
  ASSERT_EQ(small_.call("train-tokenizer").code, 0);
  ASSERT_EQ(small_.call("pretrain").code, 0);
  const int status = end_by(start(small_, small_.arguments("generate", "generate.jets=2000000"),
                                  run_ + "/generate/settings.txt"),
                            {SIGTERM});
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
  EXPECT_FALSE(fs::exists(run_ + "/generate/jets.h5"));
}

TEST_F(RunDirectory, TheSameStageTwiceAtOnceIsRefusedWithOneLine) {
  const std::string command = small_.arguments("train-tokenizer", "tokenizer.steps=100000");
  const pid_t first = start(small_, command, run_ + "/tokenizer/checkpoints/latest");
  const Outcome second = run_tessera(small_.dir(), command);
  const int status = end_by(first, {SIGTERM});
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 75) << status;
  EXPECT_EQ(second.code, 64) << second.err;
  EXPECT_NE(second.err.find("another process works in this run directory"), std::string::npos)
      << second.err;
  EXPECT_EQ(std::ranges::count(second.err, '\n'), 1) << second.err;
}

TEST_F(RunDirectory, ADirectoryThatCannotBeWrittenIsAnIoError) {
  const std::string file = (small_.dir().path() / "file").string();
  std::ofstream(file) << "x";
  for (const std::string& directory :
       {std::string("/proc/run"), std::string("/dev/null/run"), file, file + "/run"}) {
    const Outcome o = small_.call("train-tokenizer", "run.directory=" + directory);
    EXPECT_EQ(o.code, 74) << directory << ": " << o.err;
    EXPECT_NE(o.err.find(fs::path(directory).parent_path().string()), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("errno"), std::string::npos) << o.err;
    EXPECT_EQ(std::ranges::count(o.err, '\n'), 1) << o.err;
  }
}

TEST_F(RunDirectory, FailedSavesLeaveNothingBehindHoweverOftenTheyAreTried) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(small_.call("train-tokenizer", "", "trap '' XFSZ; ulimit -f 8;").code, 74);
  }
  std::vector<std::string> left;
  for (const auto& entry : fs::recursive_directory_iterator(run_)) {
    if (entry.path().filename().string().find(".tmp") != std::string::npos) {
      left.push_back(entry.path());
    }
  }
  EXPECT_TRUE(left.empty()) << left.at(0);
}

TEST_F(RunDirectory, BoundsThatTheMathematicsExcludesAreRefused) {
  for (const char* key : {"tokenizer.beta2=1.0", "tokenizer.beta2=0.99999999",
                          "tokenizer.dropout=1.0", "tokenizer.lr=nan"}) {
    const Outcome o = small_.call("train-tokenizer", key);
    EXPECT_EQ(o.code, 64) << key << ": " << o.err;
  }
  EXPECT_NE(small_.call("train-tokenizer", "tokenizer.beta2=1.0").err.find("less than 1"),
            std::string::npos);
  EXPECT_EQ(small_.call("train-tokenizer", "tokenizer.beta2=0.0").code, 0);
}

}  // namespace
}  // namespace tessera
