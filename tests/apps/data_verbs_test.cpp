// The verbs that make data, from their command lines.
#include "apps/data_verbs.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "apps/file_splits.h"
#include "core/check.h"
#include "support/jet_files.h"
#include "support/temp_dir.h"
#include "train/dataset.h"
#include "train/native_writer.h"

namespace tessera::apps {
namespace {

const std::filesystem::path kRoot = TESSERA_SOURCE_DIR;

void run(const std::string& line) {
  CLI::App app("test", "tessera");
  app.require_subcommand(1);
  std::function<void()> action;
  add_data_verbs(app, action);
  app.parse(line, false);
  action();
}

ErrorKind kind_of(const std::string& line) {
  try {
    run(line);
  } catch (const Error& e) {
    return e.kind();
  }
  return ErrorKind::internal;
}

std::string stream() { return (kRoot / "tests/fixtures/ee_tautau.particles").string(); }

TEST(DataVerbs, SimulateWritesADataSetThatItsManifestOpens) {
  const TempDir d;
  const auto file = (d.path() / "z-train.h5").string();
  run("simulate --output " + file + " --quiet --source 21:99:20 --mantissa-bits 14 --file " +
      stream());
  write_manifest_verb(d.path().string());
  EXPECT_EQ(Dataset(d.path()).size(), 20U);
  EXPECT_EQ(H5File::open(file).read_attribute<std::string>("command"),
            "tessera simulate --output " + file + " --mantissa-bits 14 --file " + stream() +
                " --source 21:99:20");
}

TEST(DataVerbs, WhatIsWrongDecidesTheKindOfError) {
  const TempDir d;
  const auto out = (d.path() / "x.h5").string();
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99"), ErrorKind::usage);
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 13:0:5 --file " + stream()),
            ErrorKind::usage);
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99:20 --file " + out),
            ErrorKind::missing);
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99:9999 --file " + stream()),
            ErrorKind::missing);
  std::ofstream(d.path() / "bad") << "no events";
  EXPECT_EQ(kind_of("simulate --output " + out + " --source 21:99:20 --file " +
                    (d.path() / "bad").string()),
            ErrorKind::data);
  EXPECT_FALSE(std::filesystem::exists(out));
  EXPECT_THROW(write_manifest_verb(out), Error);
}

/// A folder of small native files, each with jets of its own, and what the verb makes of it.
class SplitsOfFiles : public testing::Test {
 protected:
  using Names = std::vector<std::string>;

  void add(const std::string& name, const std::map<std::string, std::string>& attributes = {}) {
    const auto path = dir_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    NativeJets jets;
    const JetBlock b = random_jets({3, 4}, 2 * count_++);
    jets.offsets = b.offsets;
    jets.columns = {{"pf/px", b.px},
                    {"pf/py", b.py},
                    {"pf/pz", b.pz},
                    {"pf/energy", b.energy},
                    {"pf/pid", b.pid},
                    {"pf/charge", b.charge},
                    {"id", b.id},
                    {"jet/pt", b.jet_pt},
                    {"jet/eta", b.jet_eta},
                    {"jet/phi", b.jet_phi},
                    {"jet/energy", b.jet_energy}};
    for (const auto& [key, value] : attributes) {
      jets.attributes[key] = value;
    }
    write_native_jets(path, jets);
  }
  void add_chunks(const std::string& name, const std::vector<int>& chunks) {
    std::string settings;
    for (const int chunk : chunks) {
      settings += fmt::format("# sample 1 chunk {}: 2 jets of 3 events, 1 pb\nX:y=on\n", chunk);
    }
    add(name, {{"source", "tessera simulate"}, {"settings", settings}});
  }
  std::map<std::string, Names> splits(const Names& declared = {}) {
    said_.clear();
    return FileSplits(dir_.path().string(), declared).splits([&](const std::string& line) {
      said_.push_back(line);
    });
  }
  std::string refusal(ErrorKind kind, const Names& declared = {}) {
    try {
      splits(declared);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.message();
      return e.message();
    }
    ADD_FAILURE() << "no error";
    return "";
  }
  [[nodiscard]] int lines_with(const std::string& word) const {
    return static_cast<int>(std::ranges::count_if(
        said_, [&](const std::string& s) { return s.find(word) != std::string::npos; }));
  }

  TempDir dir_;
  Names said_;

 private:
  std::uint64_t count_ = 0;
};

TEST_F(SplitsOfFiles, WholeWordsOfANameTellItAndAFileThatTellsNoneIsSaid) {
  for (const char* name : {"latest.h5", "contest.h5", "interval.h5", "pretrained_test.h5",
                           "Validation-7.h5", "TRAIN01.h5", "training.h5", "qq.val.h5"}) {
    add(name);
  }
  const auto got = splits();
  EXPECT_EQ(got.at("test"), Names{"pretrained_test.h5"});
  EXPECT_EQ(got.at("val"), (Names{"Validation-7.h5", "qq.val.h5"}));
  EXPECT_EQ(got.at("train"),
            (Names{"TRAIN01.h5", "contest.h5", "interval.h5", "latest.h5", "training.h5"}));
  EXPECT_EQ(said_.size(), 3U);
  for (const char* name : {"latest.h5", "contest.h5", "interval.h5"}) {
    EXPECT_EQ(lines_with(std::string(name) + ": its name tells no split; in train"), 1) << name;
  }
}

TEST_F(SplitsOfFiles, ANameOrAttributeThatSaysTwoThingsIsRefusedWithTheFlagThatDecides) {
  add("train_test.h5");
  EXPECT_NE(refusal(ErrorKind::data).find("train_test.h5"), std::string::npos);
  EXPECT_NE(refusal(ErrorKind::data).find("--split"), std::string::npos);
  EXPECT_EQ(splits({"val=train_test.h5"}).at("val"), Names{"train_test.h5"});
  add("val/b-test.h5");
  EXPECT_NE(refusal(ErrorKind::data, {"train=train_test.h5"}).find("b-test.h5"), std::string::npos);
  std::filesystem::remove(dir_.path() / "val/b-test.h5");
  add("a-train.h5", {{"split", "test"}});
  EXPECT_NE(refusal(ErrorKind::data, {"train=train_test.h5"}).find("test and train"),
            std::string::npos);
}

TEST_F(SplitsOfFiles, FoldersAndTheFilesOwnAttributeTellIt) {
  add("train/a.h5"), add("val_5M/HToBB.h5"), add("test/a.h5"), add("other/a.h5");
  add("x.h5", {{"split", "validation"}}), add("y-test.h5", {{"split", "test"}});
  const auto got = splits();
  EXPECT_EQ(got.at("train"), Names{"train/a.h5"});
  EXPECT_EQ(got.at("val"), (Names{"val_5M/HToBB.h5", "x.h5"}));
  EXPECT_EQ(got.at("test"), (Names{"test/a.h5", "y-test.h5"}));
  EXPECT_TRUE(said_.empty());
  add("z.h5", {{"split", "holdout"}});
  EXPECT_NE(refusal(ErrorKind::data).find("attribute 'split'"), std::string::npos);
}

TEST_F(SplitsOfFiles, ChunksTellItWhereTheNameDoesNotAndAreComparedWhereItDoes) {
  add_chunks("a.h5", {85, 86}), add_chunks("b.h5", {99}), add_chunks("c-train.h5", {85}),
      add_chunks("d-train.h5", {0, 79});
  const auto got = splits();
  EXPECT_EQ(got.at("val"), Names{"a.h5"});
  EXPECT_EQ(got.at("test"), Names{"b.h5"});
  EXPECT_EQ(got.at("train"), (Names{"c-train.h5", "d-train.h5"}));
  EXPECT_EQ(lines_with("c-train.h5: in train, though its chunks 85 are for val"), 1);
  EXPECT_EQ(said_.size(), 3U);  // a and b by their chunks, c against them
  add_chunks("e.h5", {79, 80});
  EXPECT_NE(refusal(ErrorKind::data).find("e.h5"), std::string::npos);
}

TEST_F(SplitsOfFiles, WhatIsDeclaredHoldsAndIsChecked) {
  add("a1.h5"), add("a2.h5"), add("b-test.h5"), add("other/c.hdf5");
  auto got = splits({"train=a*.h5", "val=b-test.h5", "test=" + (dir_.path() / "other/*").string()});
  EXPECT_EQ(got.at("train"), (Names{"a1.h5", "a2.h5"}));
  EXPECT_EQ(got.at("val"), Names{"b-test.h5"});
  EXPECT_EQ(got.at("test"), Names{"other/c.hdf5"});
  EXPECT_TRUE(said_.empty());
  refusal(ErrorKind::missing, {"train=d*.h5"});
  refusal(ErrorKind::usage, {"train=a1.h5", "val=a?.h5"});
  refusal(ErrorKind::usage, {"holdout=a1.h5"});
  refusal(ErrorKind::usage, {"train"});
  refusal(ErrorKind::usage, {"train=/dev/../" + (kRoot / "tests/fixtures/jetclass.h5").string()});
}

TEST_F(SplitsOfFiles, TheManifestListsFilesOfFolders) {
  add("train/a.h5"), add("val/a.h5"), add("b.h5");
  write_manifest_verb(dir_.path().string(), {.splits = {"test=b.h5"}});
  EXPECT_EQ(Dataset(dir_.path(), {.split = "val"}).size(), 2U);
  EXPECT_EQ(Dataset(dir_.path(), {.split = "test"}).size(), 2U);
}

TEST(DataVerbs, OneEventFileServesSeveralSourcesAndRunsOnce) {
  const TempDir d;
  const auto simulate = [&](const std::string& name, const std::string& more) {
    run("simulate --quiet --output " + (d.path() / name).string() + " --file " + stream() + more);
  };
  simulate("train.h5", " --source 21:0:8 --source 21:1:8");
  simulate("leak.h5", " --source 21:90:8");
  EXPECT_THROW(write_manifest_verb(d.path().string()), Error);
  EXPECT_NO_THROW(write_manifest_verb(d.path().string(), {.allow_equal_jets = true}));
  std::filesystem::remove(d.path() / "leak.h5");
  simulate("test.h5", " --skip-events 20 --source 21:90:8");
  EXPECT_NO_THROW(write_manifest_verb(d.path().string()));
  const auto command = H5File::open(d.path() / "test.h5").read_attribute<std::string>("command");
  EXPECT_NE(command.find(" --skip-events 20"), std::string::npos) << command;
}

TEST(DataVerbs, TheCommittedSampleRecordsTheCommandsThatMakeIt) {
  for (const char* name : {"jets/train", "jets/val", "jets/test", "tau/z-train", "tau/qq-test"}) {
    const std::string path = std::string("apps/sample/") + name + ".h5";
    const auto command = H5File::open(kRoot / path).read_attribute<std::string>("command");
    EXPECT_TRUE(command.starts_with("tessera simulate --output " + path)) << command;
    CLI::App app("test", "tessera");
    std::function<void()> action;
    add_data_verbs(app, action);
    EXPECT_NO_THROW(app.parse(command.substr(sizeof("tessera"), std::string::npos), false))
        << command;
  }
}

}  // namespace
}  // namespace tessera::apps
