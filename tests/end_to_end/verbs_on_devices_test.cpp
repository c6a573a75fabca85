// Every preset and verb on every device beside the cpu, with graphs and without: a few steps of
// small models with all the switches of the preset, against the same on the cpu.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/device.h"
#include "support/command_line.h"
#include "support/jet_files.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A preset with some settings changed.
struct Case {
  const char* name;
  const char* preset;
  const char* more;
};

// Heads, strategies, methods, tasks, losses, schedules and precisions each appear in one of them at
// least, the defaults of a preset in its first one.
const Case kCases[] = {
    {"Quickstart", "quickstart",
     "finetune.tasks=tau-pt finetune.methods=deepsets finetune.strategies=frozen"},
    {"TinyEveryStrategy", "tiny",
     "finetune.tasks=tag finetune.methods= "
     "finetune.strategies=scratch,random-frozen,frozen,lpft,delayed,full,lora"},
    {"TinyEveryTask", "tiny",
     "finetune.tasks=tau-pt,tau-id,tau-dm finetune.methods=pfn finetune.strategies=full "
     "finetune.tau_particle_blocks=1"},
    {"TinyAtBf16", "tiny",
     "run.precision=bf16 finetune.tasks=tag finetune.methods= finetune.strategies=full,lora"},
    {"TesseraS", "tessera-s",
     "finetune.tasks=tag finetune.methods=part finetune.strategies=lpft "
     "run.on_non_finite=skip"},
    {"OmnijetAlpha", "omnijet-alpha",
     "finetune.tasks=tag finetune.methods=pfn "
     "finetune.strategies=scratch,random-frozen,frozen,lpft,delayed,full,lora"},
    {"OmnijetAlphaByClassAttention", "omnijet-alpha",
     "finetune.classifier=class-attention-ref finetune.head_dropout=0.1 finetune.tasks=tag "
     "finetune.methods= finetune.strategies=full pretrain.schedule=cosine "
     "tokenizer.schedule=cosine tokenizer.clip=0"},
    {"OmnijetAlphaClean", "omnijet-alpha",
     "run.compat=clean finetune.tasks=tag finetune.methods= finetune.strategies=full "
     "finetune.classifier=class-attention"},
    {"OmnijetAlphaAtBf16", "omnijet-alpha",
     "run.precision=bf16 finetune.tasks=tag finetune.methods= finetune.strategies=full"},
};

class VerbsOnDevices : public ::testing::TestWithParam<Case> {
 protected:
  TempDir dir_;
  std::string data_ = (dir_.path() / "data").string();

  void SetUp() override {
    fs::create_directory(data_);
    std::vector<std::int64_t> lengths;
    for (int j = 0; j < 10; ++j) {
      lengths.push_back(1 + 5 * j % 4);
    }
    write_jets(fs::path(data_) / "jets.h5", random_jets(lengths, 100));
    // Splits may share a file: nothing here is a measurement.
    DatasetManifest all = make_manifest(data_, "few", {{"train", {"jets.h5"}}});
    all.splits["val"] = all.splits["test"] = all.splits.at("train");
    write_manifest(data_, all);
  }
  /// A verb of a case on a device; `way` names the run's directory.
  Outcome verb(const std::string& verb, const Case& c, const std::string& device,
               const std::string& way, const std::string& prefix) {
    return run_tessera(
        dir_,
        fmt::format(
            "{} --quiet -c {} --device {} run.directory={} data.jets={} data.taus={}"
            " data.max_particles=4 tokenizer.width=8 tokenizer.blocks=1 tokenizer.heads=2"
            " tokenizer.codes=16 tokenizer.steps=3 tokenizer.batch=7 tokenizer.epoch_steps=1"
            " backbone.width=8 backbone.blocks=1 backbone.heads=2 pretrain.steps=3"
            " pretrain.batch=7 pretrain.epoch_steps=1 finetune.part=small"
            " finetune.lr_grid=[] finetune.seeds=1 finetune.train_jets=10 finetune.steps=3"
            " finetune.validation=fixed finetune.batch=5 finetune.evaluations=1"
            " finetune.epoch_steps=1 generate.jets=2 generate.slots=2 {}",
            verb, c.preset, device, run(way), data_, data_, c.more),
        0, prefix);
  }
  [[nodiscard]] std::string run(const std::string& way) const {
    return (dir_.path() / way).string();
  }

  void train(const Case& c, const std::string& device, const std::string& way,
             const std::string& prefix = "") {
    for (const char* name : {"train-tokenizer", "pretrain", "finetune"}) {
      const Outcome r = verb(name, c, device, way, prefix);
      ASSERT_EQ(r.code, 0) << device << ", " << name << ": " << r.err;
    }
  }
  /// The verbs that use what a run has trained.
  void use(const Case& c, const std::string& device, const std::string& way) {
    const Outcome drawn = verb("generate", c, device, way, "");
    ASSERT_EQ(drawn.code, 0) << device << ": " << drawn.err;
    for (const fs::path& model : models(way)) {
      for (const char* name : {"evaluate", "predict"}) {
        const Outcome r = run_tessera(
            dir_, fmt::format("{} --device {} {} {}", name, device, model.string(), data_));
        ASSERT_EQ(r.code, 0) << device << ", " << name << ": " << r.err;
      }
    }
  }
  /// The first fine-tuned model of each kind of network.
  [[nodiscard]] std::vector<fs::path> models(const std::string& way) const {
    std::map<std::string, fs::path> first;
    for (const auto& entry : fs::directory_iterator(run(way) + "/finetune")) {
      const std::string study = entry.path().filename().string();
      first.emplace(study.substr(study.find("__"), 6), entry.path() / "model");
    }
    std::vector<fs::path> all;
    for (const auto& [network, model] : first) {
      all.push_back(model);
    }
    return all;
  }
  /// The metrics of every training, by stage.
  [[nodiscard]] std::map<std::string, std::string> metrics(const std::string& way) const {
    std::map<std::string, std::string> texts;
    for (const auto& entry : fs::recursive_directory_iterator(run(way))) {
      if (entry.path().filename() == "metrics.jsonl") {
        texts[fs::relative(entry.path().parent_path(), run(way)).string()] =
            read_text(entry.path());
      }
    }
    return texts;
  }
};

std::vector<double> losses(const std::string& metrics) {
  std::istringstream in(metrics);
  std::vector<double> all;
  for (std::string line; std::getline(in, line);) {
    all.push_back(json::parse(line).at("loss").get<double>());
  }
  return all;
}

TEST_P(VerbsOnDevices, TrainAsOnTheCpuAsGraphsAndKernelByKernel) {
  const Case& c = GetParam();
  const bool rounded = std::string(c.more).find("bf16") != std::string::npos;
  for (const Device device : devices()) {
    if (device == kCpu) {
      continue;
    }
    const std::string there = name(device.type);
    ASSERT_NO_FATAL_FAILURE(train(c, there, there));
    ASSERT_NO_FATAL_FAILURE(use(c, there, there));
    ASSERT_NO_FATAL_FAILURE(
        train(c, there, there + "-direct", "TESSERA_GRAPH=off;export TESSERA_GRAPH;"));
    const auto queued = metrics(there);
    EXPECT_GE(queued.size(), 3U);
    EXPECT_EQ(metrics(there + "-direct"), queued) << "graphs change no bit";
    if (rounded) {
      continue;  // what is rounded on a device is not on the cpu
    }
    ASSERT_NO_FATAL_FAILURE(train(c, "cpu", "cpu"));
    for (const auto& [stage, text] : metrics("cpu")) {
      const auto here = losses(text), got = losses(queued.at(stage));
      ASSERT_EQ(got.size(), here.size()) << stage;
      for (std::size_t i = 0; i < here.size(); ++i) {
        EXPECT_NEAR(got[i], here[i], 2e-3 * std::abs(here[i])) << stage << ", step " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Presets, VerbsOnDevices, ::testing::ValuesIn(kCases),
                         [](const auto& c) { return std::string(c.param.name); });

}  // namespace
}  // namespace tessera
