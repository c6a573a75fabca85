// What files say beside momenta: a column of truth that some lack, and names that no table can
// hold.
#include <gtest/gtest.h>

#include <functional>

#include "support/small_sample.h"
#include "support/tiny_jobs.h"
#include "train/names.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Random jets, 30 in each file, with the ids of the file's number.
NativeJets jets_of_file(std::uint64_t number) {
  return native_columns(random_jets(random_lengths(30, number + 1, 9), 1 + 100 * number),
                        {"QCD", "Hbb", "Tbqq"});
}

/// Of each split a file of signal and one of background, which lacks a column in the named split;
/// where no split is named, all files lack it.
void write_without(const fs::path& directory, const std::string& split, const std::string& column) {
  std::map<std::string, std::vector<std::string>> splits;
  std::uint64_t number = 0;
  for (const char* s : {"train", "val", "test"}) {
    for (const char* part : {"signal", "background"}) {
      NativeJets jets = jets_of_file(number++);
      if (split.empty() || (s == split && part == std::string("background"))) {
        jets.columns.erase(column);
        if (column == "label/class") jets.classes.clear();
      }
      splits[s].push_back(std::string(s) + "_" + part + ".h5");
      write_native_jets(directory / splits[s].back(), std::move(jets));
    }
  }
  write_manifest(directory, make_manifest(directory, "mixed", splits));
}

Splits open(const fs::path& directory) {
  const auto split = [&](const char* name) {
    return std::make_shared<const Dataset>(directory, DatasetOptions{.split = name});
  };
  return {split("train"), split("val"), split("test"), {.max_constituents = 16}};
}

/// The message of the error of some kind that a call ends with; empty where it ends well.
std::string error_of(ErrorKind kind, const std::function<void()>& call) {
  try {
    call();
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.message();
    return e.message();
  }
}

struct Needed {
  Task task;
  const char* column;
};
constexpr Needed kNeeded[] = {{Task::tau_id, "label/tau_dm"}, {Task::tau_dm, "label/tau_dm"},
                              {Task::tau_pt, "label/tau_dm"}, {Task::tau_pt, "truth/vis_px"},
                              {Task::tau_pt, "truth/vis_py"}, {Task::tag, "label/class"}};

// Before: signal 11, or a visible momentum of 0 that nobody had written.
TEST(TruthColumns, AFileThatLacksOneIsNamedBeforeAnythingIsTrained) {
  for (const auto& [task, column] : kNeeded) {
    for (const char* split : {"train", "val", "test"}) {
      const TempDir dir;
      write_without(dir.path(), split, column);
      const Splits data = open(dir.path());
      const std::string said =
          error_of(ErrorKind::data, [&] { check_labels(task, Validation::subset, data); });
      EXPECT_NE(said.find(std::string(split) + "_background.h5"), std::string::npos) << said;
      EXPECT_NE(said.find(std::string("'") + column + "'"), std::string::npos) << said;
    }
  }
}

TEST(TruthColumns, WhereNoFileHasOneTheFirstIsNamed) {
  for (const auto& [task, column] : kNeeded) {
    const TempDir dir;
    write_without(dir.path(), "", column);
    const Splits data = open(dir.path());
    const std::string said =
        error_of(ErrorKind::data, [&] { check_labels(task, Validation::fixed, data); });
    EXPECT_NE(said.find("train_signal.h5: dataset '" + std::string(column)), std::string::npos)
        << said;
  }
}

TEST(TruthColumns, WhateverReadsThemRefusesAFileWithout) {
  for (const auto& [task, column] : kNeeded) {
    const TempDir dir;
    write_without(dir.path(), "train", column);
    const Splits data = open(dir.path());
    const std::vector<std::uint64_t> all{0, 1, 40};
    const auto refuses = [&](const char* what, const std::function<void()>& call) {
      const std::string said = error_of(ErrorKind::data, call);
      EXPECT_NE(said.find("train_background.h5: dataset '" + std::string(column)),
                std::string::npos)
          << name(task) << ", " << what << ": " << said;
    };
    refuses("selection", [&] { (void)select_jets(task, *data.train); });
    refuses("strata", [&] { (void)stratify_labels(task, *data.train, all); });
    if (task == Task::tau_pt) {
      refuses("targets", [&] { (void)regression_targets(*data.train, all); });
    }
    if (task == Task::tag) {
      refuses("outputs", [&] { (void)outputs_of(task, *data.train); });
      UnlabelledData some{.train = {data.train}, .classes = {"Hbb"}, .features = data.features};
      refuses("classes to pre-train on", [&] { (void)unlabelled_jets(some, *data.train); });
    }
    FinetuneJob job = tiny::finetune_job(Strategy::scratch, {});
    job.model.task = task;
    refuses("training", [&] { (void)finetune(job, data, {}, {}); });
  }
}

TEST(TruthColumns, AColumnThatATaskDoesNotNeedMayBeMissing) {
  const TempDir dir;
  write_without(dir.path(), "train", "label/class");
  EXPECT_FALSE(select_jets(Task::tau_id, *open(dir.path()).train).empty());
  const TempDir other;
  write_without(other.path(), "train", "truth/vis_px");
  EXPECT_NO_THROW(check_labels(Task::tag, Validation::fixed, open(other.path())));
  EXPECT_NO_THROW(check_labels(Task::tau_dm, Validation::fixed, open(other.path())));
}

TEST(TruthColumns, ATauWithoutVisibleMomentumIsNoTarget) {
  const TempDir dir;
  JetBlock b = random_jets(random_lengths(30, 1, 9));
  const auto tau = static_cast<std::size_t>(
      std::ranges::find_if(b.tau_dm, [](int mode) { return mode >= 0 && mode < 16; }) -
      b.tau_dm.begin());
  b.vis_px[tau] = b.vis_py[tau] = 0;
  write_jets(dir.path() / "a.h5", b);
  write_manifest(dir.path(), make_manifest(dir.path(), "x", {{"train", {"a.h5"}}}));
  const Dataset data(dir.path());
  const std::vector<std::uint64_t> jets{tau};
  const std::string said = error_of(ErrorKind::data, [&] { (void)regression_targets(data, jets); });
  EXPECT_NE(said.find(fmt::format("id {}", b.id[tau])), std::string::npos) << said;
}

struct Name {
  const char* text;
  bool good;
};
constexpr Name kNames[] = {{"Hbb", true},
                           {"a,b", true},
                           {"say \"jet\"", true},
                           {"$x^{$", true},
                           {"\xc3\xa9t\xc3\xa9", true},
                           {"b jets", true},
                           {"a\nb", false},
                           {"a\tb", false},
                           {"\x1b[31m", false},
                           {"caf\xe9", false},
                           {"\xff", false},
                           {"a\xc2\x85z", false},
                           {"a\xe2\x80\xa8z", false},
                           {"cut \xe2\x80", false}};

/// That one line is said, which names the file and, legibly, the name.
void expect_refused(const std::string& said, const std::string& file, const std::string& name) {
  EXPECT_NE(said.find(file), std::string::npos) << name << ": " << said;
  EXPECT_EQ(said, one_line(said));
  const auto letter = std::ranges::find_if(name, [](char c) { return std::isalpha(c) != 0; });
  if (letter != name.end()) {
    EXPECT_NE(said.rfind(*letter), std::string::npos) << said;
  }
}

std::string manifest_error(const fs::path& directory, const std::string& file) {
  return error_of(ErrorKind::data, [&] {
    write_manifest(directory, make_manifest(directory, "x", {{"train", {file}}}));
    EXPECT_EQ(read_manifest(directory).splits.at("train")[0].file, file);
  });
}

// Before: exit code 70 and "json.exception", or a table that no reader takes apart.
TEST(Names, ClassNamesAreOneLineOfUtf8OrRefusedWithFileAndName) {
  for (const auto& [name, good] : kNames) {
    const TempDir dir;
    NativeJets jets = jets_of_file(0);
    jets.classes[1] = name;
    write_native_jets(dir.path() / "a.h5", std::move(jets));
    const std::string said = manifest_error(dir.path(), "a.h5");
    EXPECT_EQ(said.empty(), good) << said;
    if (!good) expect_refused(said, "a.h5: dataset 'label/class', attribute 'classes'", name);
  }
}

TEST(Names, ClassNamesThatAreEmptyOrComeTwiceAreRefused) {
  const std::vector<std::string> lists[] = {
      {"QCD", "", "Tbqq"}, {"QCD", "QCD", "Tbqq"}, {"QCD", "Hbb", "Hbb"}, {"QCD", "Hbb", "QCD"}};
  for (const auto& classes : lists) {
    const TempDir dir;
    NativeJets jets = jets_of_file(0);
    jets.classes = classes;
    write_native_jets(dir.path() / "a.h5", std::move(jets));
    const std::string said = manifest_error(dir.path(), "a.h5");
    EXPECT_NE(said.find("a.h5: dataset 'label/class', attribute 'classes'"), std::string::npos)
        << said;
  }
}

TEST(Names, OfColumnsAndUnitsAreOneLineOfUtf8OrRefusedWithFileAndName) {
  for (const auto& [name, good] : kNames) {
    for (const bool unit : {false, true}) {
      const TempDir dir;
      const std::string column = std::string("jet/") + (unit ? "extra" : name);
      write_jets(dir.path() / "a.h5", random_jets({3, 2}), 65536, "", [&](H5File& file) {
        file.write_column(column, std::vector<float>{1, 2}, {});
        file.write_attribute("unit", std::string_view(unit ? name : "GeV"), column);
      });
      const std::string said = manifest_error(dir.path(), "a.h5");
      EXPECT_EQ(said.empty(), good) << said;
      if (!good) expect_refused(said, "a.h5", name);
    }
  }
}

TEST(Names, OfFilesAreOneLineOfUtf8OrRefused) {
  for (const auto& [name, good] : kNames) {
    const TempDir dir;
    const std::string file = std::string(name) + ".h5";
    write_jets(dir.path() / file, random_jets({3, 2}));
    const std::string said = manifest_error(dir.path(), file);
    EXPECT_EQ(said.empty(), good) << said;
    if (!good) expect_refused(said, dir.path().string(), name);
  }
}

TEST(Names, OfAFolderAreALabelThatIsWrittenLegibly) {
  for (const auto& [name, good] : kNames) {
    const TempDir dir;
    const fs::path folder = dir.path() / name;
    fs::create_directory(folder);
    write_jets(folder / "a.h5", random_jets({3, 2}));
    write_manifest(folder, make_manifest(folder, name, {{"train", {"a.h5"}}}));
    const DatasetManifest manifest = read_manifest(folder);
    EXPECT_EQ(manifest.name == name, good) << manifest.name;
    EXPECT_EQ(manifest.name, one_line(name));
    EXPECT_EQ(Dataset(folder).size(), 2U);
  }
}

}  // namespace
}  // namespace tessera
