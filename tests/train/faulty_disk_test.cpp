// A training whose saves fail or whose checkpoints were damaged: it stops or goes on as asked, and
// ends with the bits of an undisturbed one.
#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>

#include "support/temp_dir.h"
#include "support/tiny_jobs.h"

namespace tessera {
namespace {

using namespace tiny;
namespace fs = std::filesystem;

TEST(FailedSave, StopsTheRunOrIsAWarningAsAsked) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const std::string want = tokenizer_bits(data, {});
  for (const bool stop : {true, false}) {
    RunFiles where = files(dir.path() / (stop ? "stop" : "warn"));
    std::vector<std::string> warnings;
    where.stop_on_failed_save = stop;
    where.warn = [&](const std::string& text) { warnings.push_back(text); };
    where.io.before_call = [](const IoCall& c) {
      const bool full =
          c.kind == IoKind::write && c.path.string().find("step-000021") != std::string::npos;
      return full ? ENOSPC : 0;
    };
    if (stop) {
      try {
        tokenizer_bits(data, where);
        FAIL() << "expected Error(io)";
      } catch (const Error& e) {
        EXPECT_EQ(exit_code(e.kind()), 74);
        EXPECT_NE(e.message().find("step-000021"), std::string::npos) << e.message();
      }
      EXPECT_EQ(find_checkpoint(where.directory).filename(), "step-000014");
      where.io = {};
    }
    EXPECT_EQ(tokenizer_bits(data, where), want);
    EXPECT_EQ(warnings.size(), stop ? 0U : 1U);
    EXPECT_FALSE(std::filesystem::exists(where.directory / "checkpoints/step-000021"));
  }
}

// Stops after step 33, so that checkpoints of steps 28 and 33 remain.
RunFiles stopped_run(const fs::path& directory, const Data& data) {
  RunFiles where = files(directory);
  int asked = 0;
  where.stop = [&] { return ++asked == 33; };
  EXPECT_THROW(tokenizer_bits(data, where), Error);
  where.stop = {};
  return where;
}

void flip_a_bit(const fs::path& file) {
  std::string bytes = read_text(file);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 8);
  std::ofstream(file, std::ios::binary) << bytes;
}

TEST(DamagedCheckpoint, TheRunGoesOnFromTheOneBeforeWithAWarning) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const std::string want = tokenizer_bits(data, {});
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
    const fs::path directory = dir.path() / file;
    RunFiles where = stopped_run(directory, data);
    std::vector<std::string> warnings;
    where.warn = [&](const std::string& text) { warnings.push_back(text); };
    flip_a_bit(directory / "checkpoints/step-000033" / file);
    EXPECT_EQ(tokenizer_bits(data, where), want);
    ASSERT_EQ(warnings.size(), 1U) << file;
    EXPECT_NE(warnings[0].find(file), std::string::npos) << warnings[0];
  }
}

TEST(DamagedCheckpoint, WhenNoneIsLeftTheRunStopsInsteadOfStartingAfresh) {
  const TempDir dir;
  const Data data(dir.path() / "data");
  const RunFiles where = stopped_run(dir.path() / "run", data);
  for (const char* step : {"step-000028", "step-000033"}) {
    flip_a_bit(dir.path() / "run/checkpoints" / step / "model.safetensors");
  }
  try {
    tokenizer_bits(data, where);
    FAIL() << "expected Error(data)";
  } catch (const Error& e) {
    EXPECT_EQ(exit_code(e.kind()), 65);
    EXPECT_NE(e.message().find("model.safetensors"), std::string::npos) << e.message();
  }
}

TEST(ChangedData, ARunDoesNotGoOnWithOtherJetsThanItBeganWith) {
  const TempDir dir;
  const Data data(dir.path() / "data"), other(dir.path() / "other", 3);
  const RunFiles where = stopped_run(dir.path() / "run", data);
  try {
    tokenizer_bits(other, where);
    FAIL() << "expected Error(data)";
  } catch (const Error& e) {
    EXPECT_EQ(exit_code(e.kind()), 65);
    EXPECT_NE(e.message().find("the data changed"), std::string::npos) << e.message();
  }
  EXPECT_EQ(tokenizer_bits(data, where), tokenizer_bits(data, {}));
}

}  // namespace
}  // namespace tessera
