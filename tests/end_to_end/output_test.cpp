// Where results go: standard output that is full, closed or without a reader ends with exit code
// 74, and -o writes to files, devices and descriptors or says in one line why not. TESSERA_SIMD,
// which results name, is taken or refused.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "support/command_line.h"
#include "support/small_sample.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTessera = TESSERA_EXECUTABLE;

class Output : public ::testing::Test {
 protected:
  TempDir dir_{memory_directory()};

  [[nodiscard]] std::string path(const std::string& name) const {
    return (dir_.path() / name).string();
  }
  /// A line of bash in the source folder; its exit code and its error stream.
  [[nodiscard]] Outcome bash(const std::string& line) const {
    const std::string whole = fmt::format("cd {} && ({}) 2>{} >{}", TESSERA_SOURCE_DIR, line,
                                          path("bash.err"), path("bash.out"));
    const char* argv[] = {"bash", "-c", whole.c_str(), nullptr};
    pid_t child = 0;
    ::posix_spawnp(&child, "bash", nullptr, nullptr, const_cast<char**>(argv), environ);
    int status = 0;
    ::waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(path("bash.out")),
            read_text(path("bash.err"))};
  }
  void expect_lost(const std::string& arguments) const {
    const std::string verb = fmt::format("{} {}", kTessera, arguments);
    const std::pair<std::string, const char*> ways[] = {
        {verb + " >/dev/full", "No space left on device"},
        {verb + " >&-", "Bad file descriptor"},
        {"set -o pipefail; (sleep 0.1; exec " + verb + ") | true", "Broken pipe"}};
    for (const auto& [line, reason] : ways) {
      const Outcome lost = bash(line);
      EXPECT_EQ(lost.code, 74) << line << "\n" << lost.err;
      EXPECT_NE(lost.err.find(std::string("standard output: cannot be written: ") + reason),
                std::string::npos)
          << line << "\n"
          << lost.err;
      EXPECT_EQ(std::ranges::count(lost.err, '\n'), 1) << line << "\n" << lost.err;
    }
  }
};

TEST_F(Output, LostResultsOfEveryPrintingVerbEndWithExitCode74) {
  write_head_of(TESSERA_SOURCE_DIR "/apps/sample/jets", path("data"), 20);
  for (const char* arguments :
       {"--help", "pretrain --help", "--version", "doctor", "doctor --json", "inspect tiny",
        "train-tokenizer --dry-run -c tiny tokenizer.steps=2 tokenizer.batch=4"}) {
    expect_lost(arguments);
  }
  expect_lost("inspect " + path("data"));
  expect_lost("verify " + path("data"));
  expect_lost("inspect --write-manifest " + path("data"));
  expect_lost(
      "simulate --quiet --overwrite --file tests/fixtures/ee_tautau.particles --source "
      "21:0:3 -o " +
      path("x.h5"));
}

TEST_F(Output, ALostLogIsNoReasonToStop) {
  for (const char* way : {"2>/dev/full", "2>&-"}) {
    const Outcome done = bash(fmt::format("{} doctor {}", kTessera, way));
    EXPECT_EQ(done.code, 0) << way;
    EXPECT_FALSE(done.out.empty());
    EXPECT_EQ(bash(fmt::format("{} doctors {}", kTessera, way)).code, 64) << way;
  }
}

/// A fine-tuned model on a few jets.
class OutputOfAModel : public Output {
 protected:
  void SetUp() override {
    const std::string run =
        " --quiet -c tiny run.directory=" + path("run") + " " + small_sample(dir_, 12) +
        " tokenizer.steps=2 tokenizer.batch=4 pretrain.steps=2 pretrain.warmup=1 pretrain.batch=4"
        " finetune.steps=2 finetune.batch=4 finetune.seeds=1 finetune.train_jets=12"
        " finetune.evaluations=1 finetune.tasks=tau-pt finetune.methods=deepsets"
        " finetune.strategies=scratch";
    for (const char* verb : {"train-tokenizer", "pretrain", "finetune"}) {
      const Outcome done = run_tessera(dir_, verb + run);
      ASSERT_EQ(done.code, 0) << done.err;
    }
    model_ = path("run/finetune/tau-pt__tessera__scratch__seed0/model") + " " + path("small/tau");
    finetune_ = "finetune" + run;
    csv_ = bash(predict("")).out;
    ASSERT_GT(csv_.size(), 100U);
  }
  [[nodiscard]] std::string predict(const std::string& more) const {
    return fmt::format("{} predict {} {}", kTessera, model_, more);
  }
  void expect_refused(const std::string& destination, int code) const {
    const Outcome refused = bash(predict("-o " + destination));
    EXPECT_EQ(refused.code, code) << destination << ": " << refused.err;
    EXPECT_NE(refused.err.find(destination), std::string::npos) << refused.err;
    EXPECT_EQ(std::ranges::count(refused.err, '\n'), 1) << refused.err;
  }

  std::string model_, finetune_, csv_;
};

TEST_F(OutputOfAModel, LostResultsEndWithExitCode74) {
  expect_lost("predict " + model_);
  expect_lost("evaluate " + model_);
  expect_lost(finetune_);
}

TEST_F(OutputOfAModel, AnOutputIsAFileADeviceOrADescriptor) {
  EXPECT_EQ(bash("cd " + path(".") + " && " + predict("-o pred.csv")).code, 0);
  EXPECT_EQ(read_text(path("pred.csv")), csv_);
  EXPECT_EQ(bash(predict("-o -")).out, csv_);
  EXPECT_EQ(bash(predict("-o /dev/stdout")).out, csv_);
  EXPECT_EQ(bash(predict("-o /dev/stdout | cat")).out, csv_);
  EXPECT_EQ(bash("echo first; " + predict("-o /dev/stdout")).out, "first\n" + csv_);
  EXPECT_EQ(bash(predict("-o /dev/fd/3 3>" + path("three"))).code, 0);
  EXPECT_EQ(read_text(path("three")), csv_);
  const std::string fifo = path("fifo");
  EXPECT_EQ(bash("mkfifo " + fifo + "; cat " + fifo + " & " + predict("-o " + fifo) + "; wait").out,
            csv_);
  EXPECT_TRUE(fs::is_fifo(fifo));
  EXPECT_EQ(bash(predict("-o /dev/null")).code, 0);
  EXPECT_TRUE(fs::is_character_file("/dev/null")) << "the device was replaced by a file";
  fs::create_symlink("pred.csv", path("link"));
  EXPECT_EQ(bash(predict("-o " + path("link"))).code, 0);
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(read_text(path("link")), csv_);
}

TEST_F(OutputOfAModel, AnOutputThatCannotBeWrittenIsOneLine) {
  expect_refused(path("small"), 64);
  expect_refused(path("small") + "/", 64);
  expect_refused(path("nowhere/pred.csv"), 66);
  expect_refused(path("bash.err/pred.csv"), 66);
  expect_refused("/dev/full", 74);
  expect_refused("/proc/pred.csv", 74);
}

TEST_F(Output, AMadeFileReplacesNoDeviceAndNeedsItsFolder) {
  const std::string simulate = std::string(kTessera) +
                               " simulate --quiet --overwrite --file tests/fixtures/ee_tautau."
                               "particles --source 21:0:3 -o ";
  EXPECT_EQ(bash(simulate + "/dev/null").code, 64);
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(bash(simulate + path("nowhere/x.h5")).code, 66);
  EXPECT_EQ(bash(simulate + dir_.path().string()).code, 64);
}

TEST_F(Output, TheLevelOfVectorInstructionsIsTheAskedOneOrRefused) {
  const auto doctor = [&](const std::string& level) {
    return bash(fmt::format("TESSERA_SIMD='{}' {} doctor --json", level, kTessera));
  };
  const auto target = [&](const std::string& level) {
    return nlohmann::json::parse(doctor(level).out).at("SIMD").get<std::string>();
  };
  for (const char* wrong : {"avx9", "AVX2", "avx2 ", "0"}) {
    const Outcome refused = doctor(wrong);
    EXPECT_EQ(refused.code, 64) << wrong;
    EXPECT_NE(refused.err.find("expected one of scalar, "), std::string::npos) << refused.err;
    EXPECT_EQ(bash(fmt::format("TESSERA_SIMD='{}' {} train-tokenizer -c tiny run.directory={}",
                               wrong, kTessera, path("run")))
                  .code,
              64);
  }
  EXPECT_FALSE(fs::exists(path("run")));
  EXPECT_EQ(target("ssse3"), "SSSE3");
  EXPECT_EQ(target("sse4"), "SSE4");
  EXPECT_TRUE(target("scalar") == "SCALAR" || target("scalar") == "EMU128") << target("scalar");
}

// A level that a kernel does not obey would give the bits of another.
TEST_F(Output, KernelsRunAtTheAskedLevel) {
  const std::string data = small_sample(dir_, 12);
  std::map<std::string, std::string> weights;
  for (const char* level : {"", "scalar", "sse4"}) {
    const std::string run = path(std::string("run") + level);
    const Outcome done = bash(fmt::format(
        "TESSERA_SIMD={} {} train-tokenizer --quiet -c tiny run.directory={} {} tokenizer.steps=3 "
        "tokenizer.batch=8",
        level, kTessera, run, data));
    ASSERT_EQ(done.code, 0) << done.err;
    const auto record = nlohmann::json::parse(read_text(run + "/run.json"));
    weights[record.at("simd")] = record.at("stages").at("tokenizer").at("weights");
  }
  std::set<std::string> different;
  for (const auto& [target, hash] : weights) {
    different.insert(hash);
  }
  EXPECT_EQ(weights.count("SSE4"), 1U);
  EXPECT_EQ(different.size(), weights.size()) << "sums of other widths have other roundings";
}

}  // namespace
}  // namespace tessera
