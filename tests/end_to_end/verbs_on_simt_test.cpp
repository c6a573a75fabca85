// evaluate, predict and generate with --device simt against the cpu, from the command line: models
// of the preset tiny in small, on a handful of jets.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "support/command_line.h"
#include "support/jet_files.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kTolerance = 1e-4;  // of sums in f32 in another order, through a whole model

class VerbsOnSimt : public ::testing::Test {
 protected:
  TempDir dir_;
  std::string data_ = (dir_.path() / "data").string(), run_ = (dir_.path() / "run").string();

  void SetUp() override {
    if (run_tessera(dir_, "doctor --json").out.find("simt") == std::string::npos) {
      GTEST_SKIP() << "this build has no device simt";
    }
    fs::create_directory(data_);
    write_jets(fs::path(data_) / "jets.h5", random_jets({3, 7, 1, 12, 5, 9, 2, 8, 4}));
    const std::vector<std::string> file{"jets.h5"};
    // Splits may share a file: nothing here is a measurement.
    const DatasetManifest all = make_manifest(data_, "few", {{"train", file}});
    DatasetManifest manifest = all;
    manifest.splits["val"] = manifest.splits["test"] = all.splits.at("train");
    write_manifest(data_, manifest);
  }
  /// A verb of a run, with few steps of small models.
  Outcome step(const std::string& verb, const std::string& more = "") {
    return run_tessera(
        dir_, verb + " --quiet -c tiny run.directory=" + run_ + " data.jets=" + data_ +
                  " data.unlabelled=jets data.max_particles=12 tokenizer.codes=32 tokenizer.steps=3"
                  " tokenizer.batch=9 pretrain.steps=3 pretrain.batch=9 finetune.tasks=tag"
                  " finetune.methods=deepsets,part finetune.strategies=full finetune.train_jets=10"
                  " finetune.steps=3 finetune.batch=9 finetune.evaluations=1 generate.jets=3"
                  " generate.slots=2 " +
                  more);
  }
  void train() {
    for (const char* verb : {"train-tokenizer", "pretrain", "finetune"}) {
      const Outcome r = step(verb);
      ASSERT_EQ(r.code, 0) << verb << ": " << r.err;
    }
  }
  /// What a verb of a stored model prints on a device.
  std::string answer(const std::string& verb, const std::string& model, const char* device) {
    const Outcome r = run_tessera(dir_, fmt::format("{} --device {} {}/finetune/{}/model {}", verb,
                                                    device, run_, model, data_));
    EXPECT_EQ(r.code, 0) << r.err;
    return r.out;
  }
};

// Two texts whose numbers are equal up to the tolerance and whose other parts are the same.
void expect_same_numbers(const std::string& got, const std::string& expected) {
  std::istringstream a(got), b(expected);
  std::string x, y;
  int compared = 0;
  while (std::getline(b, y, ',')) {
    ASSERT_TRUE(std::getline(a, x, ',')) << got;
    char* end = nullptr;
    const double number = std::strtod(y.c_str(), &end);
    if (end == y.c_str()) {
      EXPECT_EQ(x, y);
      continue;
    }
    EXPECT_NEAR(std::strtod(x.c_str(), nullptr), number,
                kTolerance * std::max(1.0, std::abs(number)));
    ++compared;
  }
  EXPECT_FALSE(std::getline(a, x, ',')) << x;
  EXPECT_GT(compared, 10);
}

// Numbers of one tree at the places of another; texts and keys equal.
void expect_same_tree(const json& got, const json& expected, const std::string& place) {
  if (expected.is_number()) {
    const auto value = expected.get<double>();
    EXPECT_NEAR(got.get<double>(), value, kTolerance * std::max(1.0, std::abs(value))) << place;
  } else if (expected.is_structured()) {
    ASSERT_EQ(got.size(), expected.size()) << place;
    for (const auto& [key, value] : expected.items()) {
      expect_same_tree(got.is_object() ? got.at(key) : got.at(std::stoul(key)), value,
                       place + "/" + key);
    }
  } else {
    EXPECT_EQ(got, expected) << place;
  }
}

TEST_F(VerbsOnSimt, PredictAndEvaluateAnswerAsOnTheCpu) {
  ASSERT_NO_FATAL_FAILURE(train());
  for (const char* model : {"tag__tessera__full__seed0", "tag__deepsets__scratch__seed0",
                            "tag__part__scratch__seed0"}) {
    SCOPED_TRACE(model);
    expect_same_numbers(answer("predict", model, "simt"), answer("predict", model, "cpu"));
    expect_same_tree(json::parse(answer("evaluate --json", model, "simt")),
                     json::parse(answer("evaluate --json", model, "cpu")), "");
  }
}

TEST_F(VerbsOnSimt, GenerateDrawsTheJetsOfTheCpu) {
  ASSERT_EQ(step("train-tokenizer").code, 0);
  ASSERT_EQ(step("pretrain").code, 0);
  std::vector<std::vector<float>> energies, likelihoods;
  std::vector<json> reports;
  for (const char* device : {"cpu", "simt"}) {
    const Outcome r = step("generate", std::string("--device ") + device);
    ASSERT_EQ(r.code, 0) << r.err;
    const auto file = H5File::open(run_ + "/generate/jets.h5");
    energies.push_back(file.read_column<float>("pf/energy"));
    likelihoods.push_back(file.read_column<float>("jet/log_likelihood"));
    reports.push_back(json::parse(read_text(run_ + "/eval/generation.json")));
    fs::remove_all(run_ + "/generate");
    fs::remove(run_ + "/eval/generation.json");
  }
  ASSERT_FALSE(energies[0].empty());
  ASSERT_EQ(energies[1].size(), energies[0].size());
  for (std::size_t i = 0; i < energies[0].size(); ++i) {
    EXPECT_NEAR(energies[1][i], energies[0][i], kTolerance * static_cast<double>(energies[0][i]));
  }
  for (std::size_t j = 0; j < 3; ++j) {
    EXPECT_NEAR(likelihoods[1].at(j), likelihoods[0].at(j), 1e-3);
  }
  expect_same_tree(reports[1].at("metrics"), reports[0].at("metrics"), "");
}

}  // namespace
}  // namespace tessera
