// evaluate and predict from the command line: names of the model, every jet, no truth needed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/command_line.h"
#include "support/labelled_files.h"
#include "train/json_text.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* const kTruth[] = {"label/class",  "label/tau_dm", "truth/vis_px",
                              "truth/vis_py", "truth/vis_pz", "truth/vis_energy"};

NativeJets unlabelled(NativeJets jets) {
  for (const char* column : kTruth) {
    jets = without(std::move(jets), {column});
  }
  return jets;
}

/// Cells of a CSV text without quotes, by line.
std::vector<std::vector<std::string>> cells(const std::string& csv) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(csv);
  for (std::string line; std::getline(lines, line);) {
    rows.emplace_back();
    std::string cell;
    for (const char c : line + ",") {
      c == ',' ? rows.back().push_back(std::exchange(cell, "")) : cell.push_back(c);
    }
  }
  return rows;
}

/// The cells below one name.
std::vector<std::string> column(const std::string& csv, const std::string& name) {
  const auto rows = cells(csv);
  const auto at = std::ranges::find(rows.at(0), name) - rows.at(0).begin();
  EXPECT_LT(at, std::ssize(rows.at(0))) << name;
  std::vector<std::string> values;
  for (std::size_t row = 1; row < rows.size(); ++row) {
    values.push_back(rows[row].at(static_cast<std::size_t>(at)));
  }
  return values;
}

class AnswersVerbs : public ::testing::Test {
 protected:
  TempDir dir_;
  JetBlock jets_ = random_jets(random_lengths(60, 4));
  NativeJets full_ = native_columns(jets_, kThree);

  [[nodiscard]] std::string at(const std::string& name) const { return dir_.path() / name; }

  Outcome tessera(const std::string& arguments) { return run_tessera(dir_, arguments); }

  /// Stores a model under `name`; its directory.
  std::string stored(const std::string& name, const TaskModel& model) {
    save_model(at(name), task_card(model.config, {.max_constituents = 16}), model);
    return at(name);
  }
  std::string tag_model() { return stored("tag", *model_of(tagger(kThree))); }

  /// The model with its classes in another order: the same answers under the same names.
  std::string turned_model(const Names& order) {
    const auto model = model_of(tagger(kThree));
    const auto turned = model_of(tagger(order));
    load(*turned, state(*model));
    for (const char* part : {"head.fc.weight", "head.fc.bias"}) {
      const auto tensors = state(*model);
      const auto from = std::ranges::find(tensors, part, &NamedTensor::name)->tensor;
      const auto all = state(*turned);
      Tensor to = std::ranges::find(all, part, &NamedTensor::name)->tensor;
      const std::size_t width = from.span<float>().size() / kThree.size();
      for (std::size_t c = 0; c < kThree.size(); ++c) {
        const auto place =
            static_cast<std::size_t>(std::ranges::find(order, kThree[c]) - order.begin());
        std::ranges::copy(from.span<float>().subspan(c * width, width),
                          to.span<float>().subspan(place * width, width).begin());
      }
    }
    return stored("turned", *turned);
  }

  std::string data(const std::string& name, const NativeJets& jets) {
    return write_splits(at(name), {{"test", jets}});
  }
};

void expect_refused(const Outcome& r, int code, std::initializer_list<std::string> parts) {
  EXPECT_EQ(r.code, code) << r.err;
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(std::ranges::count(r.err, '\n'), 1) << r.err;
  for (const std::string& part : parts) {
    EXPECT_NE(r.err.find(part), std::string::npos) << part << " in: " << r.err;
  }
}

TEST_F(AnswersVerbs, ClassesOfDataInAnotherOrderGiveTheSameAnswersAndMetrics) {
  const std::string model = tag_model(), straight = data("straight", full_);
  const std::string turned = data("b", relabelled(jets_, {"Tbqq", "QCD", "Hbb"}));
  const Outcome want = tessera("predict " + model + " " + straight);
  ASSERT_EQ(want.code, 0) << want.err;
  const Outcome got = tessera("predict " + model + " " + turned);
  EXPECT_EQ(got.out, want.out) << got.err;
  const auto label = column(want.out, "label");
  for (std::size_t j = 0; j < label.size(); ++j) {
    EXPECT_EQ(label[j], kThree[jets_.label_class[j]]);
  }
  const auto evaluated = [&](const std::string& m, const std::string& d, const char* more = "") {
    const Outcome r = tessera("evaluate --json " + m + " " + d + more);
    EXPECT_EQ(r.code, 0) << r.err;
    return json::parse(r.out);
  };
  const json a = evaluated(model, straight), b = evaluated(model, turned);
  for (const char* key : {"metrics", "confusion", "loss", "n", "errors"}) {
    EXPECT_EQ(a.at(key), b.at(key)) << key;
  }
  EXPECT_EQ(a.at("confusion").at("classes"), json(kThree));
  const std::string other = turned_model({"Hbb", "Tbqq", "QCD"});
  for (const std::string& set : {straight, turned}) {
    const json d = evaluated(model, set, (" --against " + other).c_str());
    EXPECT_EQ(d.at("against").at("differences").at("accuracy").at("value"), 0.0);
    EXPECT_EQ(d.at("metrics"), evaluated(other, set).at("metrics"));
  }
}

TEST_F(AnswersVerbs, OtherClassesAreRefusedWithBothListsOrIgnoredWhenAsked) {
  const std::string model = tag_model();
  NativeJets jets = full_;
  jets.classes = {"QCD", "Hbb", "DarkZ"};
  const std::string renamed = data("renamed", jets);
  jets.classes = {"QCD", "Hbb", "Tbqq", "DarkZ"};
  const std::string more = data("more", jets);
  for (const std::string& set : {renamed, more}) {
    for (const char* verb : {"evaluate ", "predict "}) {
      expect_refused(tessera(verb + model + " " + set), 65,
                     {R"(["QCD", "Hbb", "Tbqq"])", "DarkZ", "test_0.h5"});
    }
    const Outcome ignored = tessera("predict --ignore-labels " + model + " " + set);
    EXPECT_EQ(ignored.code, 0) << ignored.err;
    EXPECT_EQ(cells(ignored.out).at(0).size(), 8U + 3U);
  }
  const std::string nine =
      stored("nine", *model_of(tagger({"a", "b", "c", "d", "e", "f", "g", "h", "i"})));
  expect_refused(tessera("predict " + nine + " " + data("three", full_)), 65,
                 {R"(["a", "b", "c", "d", "e", "f", "g", "h", "i"])", R"(["QCD", "Hbb", "Tbqq"])"});
  expect_refused(tessera("evaluate " + model + " " + at("three") + " --against " + nine), 65,
                 {R"(["a", "b", "c", "d", "e", "f", "g", "h", "i"])"});
}

TEST_F(AnswersVerbs, AModelStoredWithoutNamesWarnsAndTakesAsManyClassesAlone) {
  TaskModelConfig nameless = tagger(kThree);
  nameless.classes.clear();
  const std::string model = stored("old", *model_of(nameless)), set = data("set", full_);
  for (const char* verb : {"evaluate ", "predict "}) {
    const Outcome r = tessera(verb + model + " " + set);
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(r.err.starts_with("WARNING")) << r.err;
    EXPECT_NE(r.err.find("holds no class names"), std::string::npos) << r.err;
  }
  EXPECT_NE(tessera("predict " + model + " " + set).out.find(",p_QCD,p_Hbb,p_Tbqq\n"),
            std::string::npos);
  const Outcome numbers = tessera("predict " + model + " " + data("bare", unlabelled(full_)));
  EXPECT_NE(numbers.out.find(",p_0,p_1,p_2\n"), std::string::npos) << numbers.err;
  NativeJets four = full_;
  four.classes.emplace_back("DarkZ");
  const std::string more = data("four", four);
  expect_refused(tessera("predict " + model + " " + more), 65, {"expected 3 classes", "DarkZ"});
  expect_refused(tessera("evaluate " + model + " " + more), 65, {"expected 3 classes", "DarkZ"});
}

TEST_F(AnswersVerbs, EveryTaskAnswersEveryJetOfDataWithoutTruth) {
  const std::string labelled = data("labelled", full_), bare = data("bare", unlabelled(full_));
  const auto empty = std::ranges::count(random_lengths(60, 4), 0);
  ASSERT_GT(empty, 0);
  for (const TaskModelConfig& config :
       {tagger(kThree),
        TaskModelConfig{.task = Task::tau_id, .backbone = tiny::kBackbone, .outputs = 2},
        TaskModelConfig{.task = Task::tau_dm, .method = Method::deepsets, .width = 8, .outputs = 6},
        TaskModelConfig{.task = Task::tau_pt, .backbone = tiny::kBackbone}}) {
    const std::string task = name(config.task);
    const std::string model = stored(task, *model_of(config));
    const Outcome r = tessera("predict " + model + " " + bare);
    ASSERT_EQ(r.code, 0) << task << r.err;
    EXPECT_NE(r.err.find(fmt::format("{} of 60 jets have no constituent", empty)),
              std::string::npos)
        << r.err;
    const auto rows = cells(r.out),
               with_truth = cells(tessera("predict " + model + " " + labelled).out);
    ASSERT_EQ(rows.size(), 61U) << task;
    EXPECT_EQ(with_truth[0].at(8), config.task == Task::tau_pt ? "pt_true_gev" : "label");
    for (std::size_t row = 0; row < rows.size(); ++row) {
      ASSERT_EQ(rows[row].size(), rows[0].size());
      EXPECT_EQ(with_truth[row].size(), rows[row].size() + 1);
      const std::string& answer = rows[row].back();
      EXPECT_EQ(answer, with_truth[row].back());
      if (row > 0) {
        EXPECT_EQ(answer.empty(), jets_.offsets[row] == jets_.offsets[row - 1]) << row;
      }
    }
    expect_refused(tessera("evaluate " + model + " " + bare), 65,
                   {"test_0.h5", config.task == Task::tag ? "'label/class'" : "'label/tau_dm'"});
  }
}

TEST_F(AnswersVerbs, ARowSaysWhichJetItIsAndWhatItsKinematicsAre) {
  const Outcome r = tessera("predict " + tag_model() + " " + data("set", full_));
  EXPECT_TRUE(
      r.out.starts_with("entry,id,jet_pt,jet_eta,jet_phi,jet_mass,split,file,label,p_QCD,"
                        "p_Hbb,p_Tbqq\n0,0,"))
      << r.out;
  const auto entry = column(r.out, "entry"), id = column(r.out, "id"), pt = column(r.out, "jet_pt"),
             mass = column(r.out, "jet_mass"), eta = column(r.out, "jet_eta");
  for (std::size_t j = 0; j < entry.size(); ++j) {
    EXPECT_EQ(entry[j], std::to_string(j));
    EXPECT_EQ(id[j], std::to_string(jets_.id[j]));
    EXPECT_EQ(std::stof(pt[j]), jets_.jet_pt[j]);
    EXPECT_EQ(std::stof(eta[j]), jets_.jet_eta[j]);
    const double e = static_cast<double>(jets_.jet_energy[j]);
    const double p =
        static_cast<double>(jets_.jet_pt[j]) * std::cosh(static_cast<double>(jets_.jet_eta[j]));
    EXPECT_NEAR(std::stod(mass[j]), e > p ? std::sqrt(e * e - p * p) : 0, 1e-4 * e) << j;
  }
}

TEST_F(AnswersVerbs, ObserversAreCopiedAndUnknownOnesAreRefusedWithTheNearestName) {
  NativeJets jets = full_;
  std::vector<float> sdmass(60);
  std::vector<std::int32_t> run(60);
  for (int j = 0; j < 60; ++j) {
    sdmass[static_cast<std::size_t>(j)] = 0.1F * static_cast<float>(j);
    run[static_cast<std::size_t>(j)] = 360'000 + j;
  }
  sdmass[3] = NAN;
  jets.columns["jet/sdmass"] = sdmass;
  jets.columns["truth/run"] = run;
  const std::string model = tag_model(), set = data("set", jets);
  const Outcome r = tessera("predict --observers jet/sdmass,truth/run --observers label/class " +
                            model + " " + set);
  ASSERT_EQ(r.code, 0) << r.err;
  const auto mass = column(r.out, "jet/sdmass"), number = column(r.out, "truth/run");
  for (std::size_t j = 0; j < 60; ++j) {
    EXPECT_EQ(number[j], std::to_string(run[j]));
    EXPECT_EQ(mass[j], j == 3 ? "" : fmt::format("{}", sdmass[j]));
  }
  EXPECT_EQ(column(r.out, "label/class"), column(r.out, "label")) << "names, not places in a list";
  expect_refused(tessera("predict --observers jet/sdmas " + model + " " + set), 64,
                 {"'jet/sdmas'", "'jet/sdmass'"});
  expect_refused(tessera("predict --observers pf/px " + model + " " + set), 64,
                 {"one value a jet", "'pf/px'"});
  expect_refused(tessera("predict --observers jet/sdmass,jet/sdmass " + model + " " + set), 64,
                 {"'jet/sdmass' twice"});
  NativeJets second = native_columns(random_jets({3, 4}, 100), kThree);
  const std::string two = write_splits(at("two"), {{"test", jets}, {"test", second}});
  expect_refused(tessera("predict --observers jet/sdmass " + model + " " + two), 65,
                 {"test_1.h5", "'jet/sdmass'"});
}

TEST_F(AnswersVerbs, SeveralSplitsAndALoneFileAreAnsweredInOneCall) {
  const std::string model = tag_model();
  const NativeJets more = native_columns(random_jets({3, 4, 2}, 100), {"QCD", "Hbb", "Tbqq"});
  const std::string set = write_splits(
      at("set"), {{"test", full_},
                  {"train", more},
                  {"train", unlabelled(native_columns(random_jets({5, 6}, 200), kThree))}});
  const Outcome both = tessera("predict " + model + " --split test,train " + set);
  ASSERT_EQ(both.code, 0) << both.err;
  EXPECT_EQ(tessera("predict " + model + " " + set + " --split test --split train").out, both.out);
  const auto split = column(both.out, "split"), file = column(both.out, "file"),
             entry = column(both.out, "entry"), label = column(both.out, "label");
  ASSERT_EQ(split.size(), 65U);
  EXPECT_EQ(split[59] + " " + file[59] + " " + entry[59], "test test_0.h5 59");
  EXPECT_EQ(split[60] + " " + file[60] + " " + entry[60], "train train_0.h5 0");
  EXPECT_EQ(split[64] + " " + file[64] + " " + entry[64], "train train_1.h5 1");
  EXPECT_EQ(label[62], kThree[102 % 3]);
  EXPECT_EQ(label[64], "") << "a file without labels beside others";
  const Outcome lone = tessera("predict " + model + " " + set + "/test_0.h5");
  ASSERT_EQ(lone.code, 0) << lone.err;
  EXPECT_EQ(column(lone.out, "p_Hbb"),
            column(tessera("predict " + model + " " + set).out, "p_Hbb"));
  EXPECT_EQ(tessera("evaluate " + model + " " + set + "/test_0.h5").code, 0);
  expect_refused(tessera("predict " + model + " " + set + "/test_0.h5 --split test"), 64,
                 {"--split"});
  expect_refused(tessera("evaluate " + model + " " + set + " --split test,train"), 64, {"--split"});
  expect_refused(tessera("predict " + model + " " + set + " --split test,tset"), 66, {"'tset'"});
  std::ofstream(at("bad.h5")) << "no HDF5";
  expect_refused(tessera("predict " + model + " " + at("bad.h5")), 65, {"bad.h5"});
}

TEST_F(AnswersVerbs, JsonIsOneObjectWithTheNumbersOfTheCsv) {
  const std::string model = tag_model(), set = data("set", full_);
  const Outcome r = tessera("predict --json " + model + " " + set);
  ASSERT_EQ(r.code, 0) << r.err;
  const json j = json::parse(r.out);
  EXPECT_EQ(j.at("classes"), json(kThree));
  EXPECT_EQ(j.at("jets"), 60);
  ASSERT_EQ(j.at("answers").size(), 60U);
  const auto csv = column(tessera("predict " + model + " " + set).out, "p_Tbqq");
  for (std::size_t row = 0; row < 60; ++row) {
    const json& p = j.at("answers")[row].at("p_Tbqq");
    EXPECT_EQ(p.is_null() ? "" : fmt::format("{:.7g}", p.get<double>()), csv[row]);
  }
  const std::string file = at("a.json");
  EXPECT_EQ(tessera("predict -o " + file + " " + model + " " + set).out, "");
  EXPECT_EQ(json::parse(read_text(file)), j);
  expect_refused(tessera("predict --json -o " + at("a.parquet") + " " + model + " " + set), 64,
                 {"--json"});
}

TEST_F(AnswersVerbs, NamesThatNeedQuotesAreQuoted) {
  const Names odd{"H->bb, boosted", "a \"b\"", "plain"};
  NativeJets jets = full_;
  jets.classes = odd;
  const Outcome r =
      tessera("predict " + stored("odd", *model_of(tagger(odd))) + " " + data("odd-data", jets));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find(R"(,"p_H->bb, boosted","p_a ""b""",p_plain)"), std::string::npos);
  EXPECT_NE(r.out.find(R"(,"H->bb, boosted",)"), std::string::npos);
}

TEST_F(AnswersVerbs, ParquetAndRootGoThroughTheProgramAndKeepAllDigits) {
  const std::string model = tag_model(), set = data("set", full_), program = at("python");
  std::ofstream(program) << "#!/bin/sh\necho \"$@\" >" << at("arguments") << "\ncp \"$2\" \"$3\"\n";
  fs::permissions(program, fs::perms::owner_all);
  for (const std::string ending : {"parquet", "root"}) {
    const std::string out = at("files/a." + ending);
    fs::remove_all(at("files"));
    fs::create_directory(at("files"));
    const Outcome r =
        tessera("predict --python " + program + " -o " + out + " " + model + " " + set);
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_NE(read_text(at("arguments")).find("--format " + ending), std::string::npos);
    std::istringstream text(read_text(out));
    std::string first, names;
    std::getline(text, first), std::getline(text, names);
    const json head = json::parse(first);
    EXPECT_EQ(head.at("types"), json({"u64", "u64", "f32", "f32", "f32", "f64", "text", "text",
                                      "text", "f64", "f64", "f64"}));
    EXPECT_EQ(head.at("head").at("classes"), json(kThree));
    EXPECT_TRUE(names.starts_with("entry,id,"));
    EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(out).parent_path()), {}), 1);
  }
  std::ofstream(program) << "#!/bin/sh\nexit 66\n";
  fs::create_directory(at("x"));
  const Outcome failed =
      tessera("predict --python " + program + " -o " + at("x/a.root") + " " + model + " " + set);
  EXPECT_EQ(failed.code, 66) << failed.err;
  EXPECT_TRUE(fs::is_empty(at("x")));
}

// Its weights are numbers, their sums are none.
TEST_F(AnswersVerbs, AModelWhoseAnswersOverflowIsBadDataThatNamesIt) {
  const auto model = model_of(tagger(kThree));
  const auto tensors = state(*model);
  Tensor weight = std::ranges::find(tensors, "head.fc.weight", &NamedTensor::name)->tensor;
  std::ranges::fill(weight.span<float>(), 3e38F);
  const std::string directory = stored("huge", *model), set = data("set", full_);
  for (const char* verb : {"predict ", "evaluate "}) {
    const Outcome r = tessera(verb + directory + " " + set);
    EXPECT_EQ(r.code, 65) << r.err;
    EXPECT_NE(r.err.find(directory + ": "), std::string::npos) << r.err;
    EXPECT_EQ(r.out, "");
  }
}

}  // namespace
}  // namespace tessera
