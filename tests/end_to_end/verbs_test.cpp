// The verbs from the command line, on the first jets of the repository's sample with a few steps:
// what they write, what a second call does, and the exit codes of mistakes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/command_line.h"
#include "support/small_sample.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// One run directory, and the executable beside the tests.
class Verbs : public ::testing::Test {
 protected:
  TempDir dir_;
  std::string run_ = (dir_.path() / "run").string();
  std::string data_ = small_sample(dir_);
  std::string taus_ = (dir_.path() / "small/tau").string();

  Outcome tessera(const std::string& arguments, useconds_t signal_after = 0) {
    return run_tessera(dir_, arguments, signal_after);
  }
  Outcome step(const std::string& verb, const std::string& more = "") {
    return tessera(verb + " --quiet run.directory=" + run_ + " " + data_ +
                   " tokenizer.steps=12 tokenizer.batch=32 pretrain.steps=6 pretrain.batch=16"
                   " finetune.steps=6 finetune.batch=16 finetune.seeds=1 finetune.train_jets=60"
                   " finetune.evaluations=1 generate.jets=20 " +
                   more);
  }
};

TEST_F(Verbs, TheChainWritesItsFilesAndASecondCallKeepsThem) {
  for (const char* verb : {"train-tokenizer", "pretrain", "generate"}) {
    const Outcome first = step(verb);
    ASSERT_EQ(first.code, 0) << verb << ": " << first.err;
    const Outcome second = step(verb);
    EXPECT_EQ(second.code, 0) << verb;
    EXPECT_NE(second.err.find("done before, kept"), std::string::npos) << second.err;
  }
  const std::string tasks = "finetune.tasks=tau-pt,tag finetune.strategies=scratch,lpft";
  const Outcome tuned = step("finetune", tasks);
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_NE(read_text(run_ + "/config.toml").find("tau-pt,tag"), std::string::npos)
      << "the configuration of the run holds what a later verb was given";
  const auto record = nlohmann::json::parse(read_text(run_ + "/run.json"));
  EXPECT_GE(record.at("revision").get<std::string>().size(), 7U) << record.at("revision");
  const auto momentum =
      nlohmann::json::parse(read_text(run_ + "/eval/tau-pt__tessera__lpft__seed0.json"));
  EXPECT_EQ(momentum.at("momentum").at("n"), momentum.at("baseline_momentum").at("n"));
  const std::string table = read_text(run_ + "/table.csv");
  EXPECT_TRUE(table.starts_with("task,method,strategy,n_train,metric,value,error,seeds\n"));
  for (const char* row :
       {"tau-pt,raw-jet,-,0,resolution,", "tau-pt,deepsets,scratch,60,resolution,",
        "tau-pt,part,scratch,60,response,", "tau-pt,tessera,lpft,60,resolution,",
        "tag,constant,-,0,accuracy,", "tag,tessera,scratch,60,accuracy,"}) {
    EXPECT_NE(table.find(row), std::string::npos) << row << "\n" << table;
  }
  EXPECT_EQ(step("finetune", tasks).out, tuned.out);
  const std::string differences = read_text(run_ + "/differences.csv");
  EXPECT_EQ(std::ranges::count(differences, '\n'), 1 + 3 * 3)
      << differences;  // 3 controls, 2 + 1 metrics
  for (const char* row : {"tau-pt,tessera,lpft,tessera,scratch,60,resolution,",
                          "tag,tessera,lpft,part,scratch,60,accuracy,"}) {
    EXPECT_NE(differences.find(row), std::string::npos) << row << "\n" << differences;
  }
  fs::remove(run_ + "/eval/tag__tessera__lpft__seed0.safetensors");
  EXPECT_EQ(step("finetune", tasks).code, 0) << "answers of an older run are made again";
  EXPECT_EQ(read_text(run_ + "/differences.csv"), differences);

  const std::string other = (dir_.path() / "other").string();
  const std::string tag = "--from " + run_ + " finetune.tasks=tag finetune.methods=deepsets ";
  const Outcome alone = step("finetune", tag + "data.taus=/nowhere run.directory=" + other);
  EXPECT_EQ(alone.code, 0) << "a dataset that no task asks for need not exist: " << alone.err;

  const std::string model = run_ + "/finetune/tau-pt__tessera__lpft__seed0/model";
  const Outcome evaluated = tessera("evaluate --json " + model + " " + taus_ + " --split val");
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  EXPECT_TRUE(nlohmann::json::parse(evaluated.out).at("errors").contains("resolution"));
  const std::string scratch = run_ + "/finetune/tau-pt__tessera__scratch__seed0/model";
  const std::string both = "evaluate --json " + model + " " + taus_ + " --against " + scratch;
  const Outcome compared = tessera(both);
  ASSERT_EQ(compared.code, 0) << compared.err;
  const auto d = nlohmann::json::parse(compared.out).at("against").at("differences");
  const std::string start = "tau-pt,tessera,lpft,tessera,scratch,60,resolution,";
  EXPECT_NE(differences.find(fmt::format("{}{:.6g},{:.4g},", start,
                                         d["resolution"]["value"].get<double>(),
                                         d["resolution"]["interval68"][0].get<double>())),
            std::string::npos)
      << compared.out << differences;
  EXPECT_NE(tessera(both + " --seed 2").out, compared.out);
  EXPECT_EQ(tessera("evaluate " + model + " " + taus_ + " --against /nowhere").code, 66);
  const Outcome predicted = tessera("predict " + model + " " + taus_ + " --split val");
  EXPECT_TRUE(predicted.out.starts_with("entry,id,jet_pt,jet_eta,jet_phi,jet_mass,split,file,"
                                        "pt_true_gev,pt_predicted_gev\n"))
      << predicted.err;
  EXPECT_EQ(tessera("inspect --json " + model).code, 0);
  const Outcome dataset = tessera("inspect " + taus_);
  EXPECT_NE(dataset.out.find("pf/px                GeV"), std::string::npos) << dataset.out;
  const Outcome above = tessera("inspect " + dir_.path().string());
  EXPECT_EQ(above.code, 66);
  EXPECT_NE(above.err.find("models below it: "), std::string::npos) << above.err;
  EXPECT_EQ(tessera("verify " + run_).code, 0);
  std::fstream flip(model + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  flip.seekp(300);
  flip.put('\x5a');
  flip.close();
  EXPECT_EQ(tessera("verify " + run_).code, 65);
  EXPECT_EQ(tessera("evaluate " + model + " " + taus_).code, 65);
}

TEST_F(Verbs, WeightedJetsCountByTheirWeightsOrAreRefusedAloud) {
  const fs::path jets = dir_.path() / "small/jets", weighted = dir_.path() / "weighted",
                 nlo = dir_.path() / "nlo";
  write_head_of(jets, weighted, 150, [](std::size_t row) { return row % 2 == 0 ? 5.0F : 0.5F; });
  write_head_of(jets, nlo, 150, [](std::size_t row) { return row % 5 == 0 ? -1.0F : 1.0F; });
  const auto with = [&](const std::string& verb, const fs::path& data, const std::string& more) {
    return step(verb,
                "data.unlabelled=jets finetune.tasks=tag finetune.methods=deepsets"
                " finetune.strategies=scratch data.jets=" +
                    data.string() + " " + more);
  };
  EXPECT_NE(tessera("inspect " + weighted.string()).out.find("effective"), std::string::npos);
  for (const char* verb : {"train-tokenizer", "pretrain"}) {
    const Outcome refused = with(verb, weighted, "");
    EXPECT_EQ(refused.code, 64) << refused.err;
    EXPECT_NE(refused.err.find("data.weights=ignore"), std::string::npos) << refused.err;
    const Outcome ignored = with(verb, weighted, "data.weights=ignore");
    ASSERT_EQ(ignored.code, 0) << ignored.err;
    EXPECT_NE(ignored.err.find("the weights of split train are ignored"), std::string::npos);
  }
  EXPECT_EQ(with("generate", weighted, "").code, 64);
  EXPECT_EQ(with("generate", weighted, "data.weights=ignore").code, 0);
  const auto tune = [&](const std::string& name, const fs::path& data, const std::string& more) {
    const std::string run = (dir_.path() / name).string();
    return with("finetune", data, "--from " + run_ + " run.directory=" + run + " " + more);
  };
  const auto file = [&](const std::string& name) { return read_text(dir_.path() / name); };
  const std::string study = "/tag__deepsets__scratch__seed0";
  const Outcome used = tune("used", weighted, "");
  ASSERT_EQ(used.code, 0) << used.err;
  EXPECT_NE(used.out.find("test split, weighted (tag)"), std::string::npos) << used.out;
  EXPECT_NE(file("used/finetune" + study + "/settings.txt").find("weights used"),
            std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(file("used/eval" + study + ".json")).at("weights").at("sum"),
            412.5);
  ASSERT_EQ(tune("ignored", weighted, "data.weights=ignore").code, 0);
  ASSERT_EQ(tune("plain", jets, "").code, 0);
  EXPECT_EQ(file("ignored/table.csv"), file("plain/table.csv")) << "ignored is without a weight";
  EXPECT_NE(file("used/eval" + study + ".json"), file("plain/eval" + study + ".json"));
  EXPECT_EQ(file("plain/finetune" + study + "/settings.txt").find("weights"), std::string::npos)
      << "the settings of runs without weights are those of old runs";

  const std::string model = (dir_.path() / ("used/finetune" + study + "/model")).string() + " ";
  const Outcome by_weight = tessera("evaluate " + model + weighted.string());
  EXPECT_NE(by_weight.out.find("weighted: they count as 8"), std::string::npos) << by_weight.out;
  const Outcome by_number = tessera("evaluate --weights ignore " + model + weighted.string());
  EXPECT_NE(by_number.err.find("are ignored"), std::string::npos) << by_number.err;
  EXPECT_NE(by_number.out, by_weight.out);
  EXPECT_EQ(tessera("predict " + model + weighted.string()).code, 0);
  EXPECT_EQ(tessera("evaluate " + model + nlo.string()).code, 0) << "metrics take negative weights";

  const Outcome negative = tune("nlo", nlo, "");
  EXPECT_EQ(negative.code, 65);
  EXPECT_NE(negative.err.find("dataset 'weight', row 0"), std::string::npos) << negative.err;
  EXPECT_EQ(tune("nlo", nlo, "data.weights=absolute").code, 0);
}

TEST_F(Verbs, PublishedCheckpointsAreImportedAndGoOnAsIfTrainedHere) {
  const std::string sizes =
      " --quiet -c omnijet-alpha run.directory=" + run_ +
      " tokenizer.width=16 tokenizer.blocks=2 tokenizer.heads=4 tokenizer.codes=64";
  const std::string backbone = " backbone.width=32 backbone.blocks=2 backbone.heads=4";
  const std::string files =
      " --tokenizer tests/golden/omnijet_tokenizer.ckpt --backbone "
      "tests/golden/omnijet_backbone.ckpt";
  const Outcome first = tessera("import" + sizes + backbone + files);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_NE(first.out.find("2 left out"), std::string::npos) << first.out;
  EXPECT_NE(first.out.find("4 heads of 8, from backbone.heads"), std::string::npos) << first.out;
  const std::string weights = read_text(run_ + "/pretrain/model/model.safetensors");
  EXPECT_NE(tessera("import" + sizes + backbone + files).err.find("imported before, kept"),
            std::string::npos);
  fs::remove_all(run_ + "/pretrain");
  EXPECT_EQ(tessera("import" + sizes + backbone + files).code, 0);
  EXPECT_EQ(read_text(run_ + "/pretrain/model/model.safetensors"), weights);
  const Outcome drawn =
      tessera("generate" + sizes + backbone + " generate.jets=20 data.max_particles=128");
  EXPECT_EQ(drawn.code, 0) << drawn.err;
  EXPECT_EQ(tessera("verify " + run_).code, 0);
  const std::string halfs = " run.directory=" + run_ + "5";
  EXPECT_EQ(tessera("import" + sizes + backbone + files + halfs + " tokenizer.distance=f16").code,
            0);
  const Outcome tuned = tessera("finetune" + sizes + backbone + halfs +
                                " finetune.methods= finetune.strategies=frozen finetune.seeds=1"
                                " finetune.train_jets=20 finetune.steps=1 finetune.batch=4");
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_NE(read_text(run_ + "5/finetune/tag__omnijet__frozen__seed0/model/config.json")
                .find("\"distance\": \"f16\""),
            std::string::npos)
      << "tokens as the imported tokenizer makes them, whatever the run says";
  const Outcome other = tessera("import" + sizes + files + " run.directory=" + run_ + "2");
  EXPECT_EQ(other.code, 65) << "the preset's backbone is larger";
  EXPECT_NE(other.err.find("omnijet_backbone.ckpt: 'head.fc1.weight' has shape (66, 32), "
                           "'head.ntp.weight' needs (66, 256); "),
            std::string::npos)
      << other.err;
  EXPECT_EQ(std::ranges::count(other.err, ';'), 5) << other.err;
  const std::string elsewhere = " run.directory=" + run_ + "3";
  EXPECT_EQ(tessera("import" + sizes + elsewhere + " --tokenizer README.md").code, 65);
  EXPECT_EQ(tessera("import" + sizes + elsewhere + "4 --tokenizer /nowhere.ckpt").code, 66);
  EXPECT_EQ(tessera("import" + sizes).code, 64);
}

TEST_F(Verbs, ACrashInAForeignReaderIsBadDataOfThatFile) {
  const std::string program = (dir_.path() / "python").string();
  std::ofstream(program) << "#!/bin/sh\nkill -SEGV $$\n";
  fs::permissions(program, fs::perms::owner_all);
  const std::string source = "tests/fixtures/jetclass.root", out = (dir_.path() / "x.h5").string();
  const Outcome died =
      tessera("convert " + source + " " + out + " --dataset jetclass --python " + program);
  EXPECT_EQ(died.code, 65);
  EXPECT_NE(died.err.find(source + ": its reader was ended by signal 11"), std::string::npos)
      << died.err;
  fs::create_directory(dir_.path() / "data");
  std::ofstream(dir_.path() / "data/a.h5") << "no HDF5";
  const Outcome refused = tessera("inspect --write-manifest " + (dir_.path() / "data").string());
  EXPECT_EQ(refused.code, 65);
  EXPECT_NE(refused.err.find("a.h5"), std::string::npos) << refused.err;
  EXPECT_EQ(std::ranges::count(refused.err, '\n'), 1) << refused.err;
}

TEST_F(Verbs, MistakesGiveOneLineAndTheirExitCode) {
  const Outcome key = step("train-tokenizer", "tokenizer.stepz=3");
  EXPECT_EQ(key.code, 64);
  EXPECT_NE(key.err.find("tokenizer.steps"), std::string::npos) << key.err;
  EXPECT_EQ(std::count(key.err.begin(), key.err.end(), '\n'), 1) << key.err;
  const Outcome verb = tessera("finetun");
  EXPECT_EQ(verb.code, 64);
  EXPECT_NE(verb.err.find("'finetune'"), std::string::npos) << verb.err;
  EXPECT_EQ(tessera("").code, 64);
  EXPECT_EQ(tessera("--version").code, 0);
  EXPECT_EQ(step("pretrain").code, 66) << "no tokenizer yet";
  EXPECT_EQ(step("train-tokenizer", "data.jets=/nowhere").code, 66);
  const Outcome device = step("train-tokenizer", "--device abacus");
  EXPECT_EQ(device.code, 64);
  EXPECT_NE(device.err.find("expected one of cpu"), std::string::npos) << device.err;
  fs::remove_all(run_);
  ASSERT_EQ(step("train-tokenizer").code, 0);
  const Outcome other = step("train-tokenizer", "tokenizer.codes=64");
  EXPECT_EQ(other.code, 64);
  EXPECT_NE(other.err.find("tokenizer.codes = 64"), std::string::npos) << other.err;
  EXPECT_EQ(step("train-tokenizer", "--resume never").code, 64);
}

TEST_F(Verbs, PrecisionBf16RunsTheChainAndIsPartOfTheSettings) {
  EXPECT_NE(tessera("pretrain --help").out.find("run.precision"), std::string::npos);
  EXPECT_EQ(step("train-tokenizer", "run.precision=fp16").code, 64);
  const Outcome refused =
      run_tessera(dir_, "train-tokenizer run.precision=bf16 run.directory=" + run_, 0,
                  "export TESSERA_SIMD=avx2;");
  EXPECT_EQ(refused.code, 64);
  EXPECT_NE(refused.err.find("AVX512-BF16"), std::string::npos) << refused.err;
  EXPECT_FALSE(fs::exists(run_));
  const auto doctor = nlohmann::json::parse(tessera("doctor --json").out);
  if (doctor.at("bf16 on cpu") == "none") {
    GTEST_SKIP() << "this CPU multiplies no bf16 (CPUID)";
  }
  const std::string task =
      "finetune.tasks=tau-id finetune.methods=deepsets "
      "finetune.strategies=full run.precision=";
  for (const char* verb : {"train-tokenizer", "pretrain", "generate", "finetune"}) {
    const Outcome r = step(verb, task + "bf16");
    ASSERT_EQ(r.code, 0) << verb << ": " << r.err;
    EXPECT_EQ(step(verb, task + "bf16").code, 0) << verb;
    const Outcome other = step(verb, task + "f32");
    EXPECT_EQ(other.code, 64) << verb;
    EXPECT_NE(other.err.find("run.precision"), std::string::npos) << other.err;
  }
  const std::string model = run_ + "/finetune/tau-id__tessera__full__seed0/model";
  const Outcome exact = tessera("predict " + model + " " + taus_ + " --split val");
  const Outcome coarse =
      tessera("predict --precision bf16 " + model + " " + taus_ + " --split val");
  EXPECT_EQ(exact.code, 0) << exact.err;
  EXPECT_EQ(coarse.code, 0) << coarse.err;
  EXPECT_NE(coarse.out, exact.out);
  EXPECT_EQ(tessera("evaluate --precision bf16 " + model + " " + taus_).code, 0);
}

TEST_F(Verbs, DistanceF16IsPartOfTheTokenizerAndOfWhatReadsItsTokens) {
  EXPECT_NE(tessera("train-tokenizer --help").out.find("tokenizer.distance"), std::string::npos);
  EXPECT_EQ(step("train-tokenizer", "tokenizer.distance=half").code, 64);
  const std::string f16 = "tokenizer.distance=f16 ", plain = (dir_.path() / "plain").string();
  if (tessera("doctor --json").out.find("simt") != std::string::npos) {
    const Outcome refused = step("train-tokenizer", f16 + "--device simt");
    EXPECT_EQ(refused.code, 64);
    EXPECT_NE(refused.err.find("distance f16 is for device cpu"), std::string::npos);
    EXPECT_FALSE(fs::exists(run_));
  }
  ASSERT_EQ(step("train-tokenizer", f16).code, 0);
  ASSERT_EQ(step("train-tokenizer", "run.directory=" + plain).code, 0);
  const auto settings = [](const std::string& run, const std::string& stage) {
    return read_text(run + "/" + stage + "/settings.txt");
  };
  EXPECT_NE(settings(run_, "tokenizer").find("tokenizer.distance = \"f16\""), std::string::npos);
  EXPECT_EQ(settings(plain, "tokenizer").find("distance"), std::string::npos)
      << "runs from before the key existed go on";
  const Outcome other = step("train-tokenizer");
  EXPECT_EQ(other.code, 64);
  EXPECT_NE(other.err.find("tokenizer.distance"), std::string::npos) << other.err;
  ASSERT_EQ(step("pretrain").code, 0) << "the stored tokenizer tells the distance";
  EXPECT_NE(settings(run_, "pretrain").find(" by f16"), std::string::npos);
  ASSERT_EQ(step("pretrain", "run.directory=" + plain).code, 0);
  EXPECT_EQ(settings(plain, "pretrain").find("f16"), std::string::npos);
}

TEST_F(Verbs, ADryRunPrintsCostsAndWritesNothing) {
  for (const char* verb : {"train-tokenizer", "pretrain", "finetune"}) {
    const Outcome r = step(verb, "--dry-run");
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_NE(r.out.find("ms/step"), std::string::npos) << r.out;
  }
  EXPECT_FALSE(fs::exists(run_));
}

TEST_F(Verbs, ASignalLeavesACheckpointAndTheSameCommandGoesOn) {
  const std::string steps = "tokenizer.steps=4000";
  const Outcome stopped = tessera(
      "train-tokenizer --quiet tokenizer.batch=8 " + steps + " run.directory=" + run_, 1'500'000);
  EXPECT_EQ(stopped.code, 75) << stopped.err;
  EXPECT_NE(stopped.err.find("checkpoint written"), std::string::npos) << stopped.err;
  EXPECT_FALSE(fs::is_empty(run_ + "/tokenizer/checkpoints"));
}

}  // namespace
}  // namespace tessera
