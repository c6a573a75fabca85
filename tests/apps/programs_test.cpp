// Programs that read a stranger's file: whatever becomes of them, the parent lives and names the
// file.
#include "apps/programs.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/file_io.h"

namespace tessera::apps {
namespace {

/// The kind and message of what `sh -c script` ends with; internal and "" where it ends well.
std::pair<ErrorKind, std::string> ended(const std::string& script, const Bounds& bounds = {}) {
  try {
    run_bounded({"sh", "-c", script}, "their.root", bounds);
  } catch (const Error& e) {
    return {e.kind(), e.message()};
  }
  return {ErrorKind::internal, ""};
}

TEST(Bounded, ACrashEndsTheChildAloneAndNamesTheFile) {
  for (const auto& [signal, text] :
       {std::pair{"SEGV", "signal 11"}, {"ABRT", "signal 6"}, {"KILL", "signal 9"}}) {
    const auto [kind, message] = ended(std::string("kill -") + signal + " $$");
    EXPECT_EQ(kind, ErrorKind::data);
    EXPECT_NE(message.find("their.root: its reader was ended by " + std::string(text)),
              std::string::npos)
        << message;
  }
}

TEST(Bounded, ExitCodesKeepTheirMeaning) {
  EXPECT_EQ(ended("exit 65").first, ErrorKind::data);
  EXPECT_EQ(ended("exit 66").first, ErrorKind::missing);
  EXPECT_EQ(ended("exit 71").first, ErrorKind::resource);
  EXPECT_EQ(ended("exit 74").first, ErrorKind::io);
  EXPECT_EQ(ended("exit 3").first, ErrorKind::internal);
  EXPECT_EQ(ended("true").second, "");
  EXPECT_THROW(run_bounded({"/no/such/program"}, "x"), Error);
}

TEST(Bounded, TheLimitsHoldInTheChildAndNowhereElse) {
  const TempDir dir;
  const std::string out = (dir.path() / "limits").string(), big = (dir.path() / "big").string();
  ASSERT_EQ(
      ended(
          "{ ulimit -v; ulimit -n; ulimit -c; ulimit -t; grep NoNewPrivs /proc/self/status; } > " +
              out,
          {.memory = 1 << 30, .descriptors = 64, .cpu_seconds = 77})
          .second,
      "");
  EXPECT_EQ(read_text(out), "1048576\n64\n0\n77\nNoNewPrivs:\t1\n");
  const auto [kind, message] = ended("exec head -c 100000 /dev/zero > " + big, {.file = 4096});
  EXPECT_EQ(kind, ErrorKind::data) << message;  // SIGXFSZ
  EXPECT_EQ(std::filesystem::file_size(big), 4096U);
  ASSERT_NO_THROW(
      run_program({"sh", "-c", "ulimit -c unlimited; grep NoNewPrivs /proc/self/status > " + out}));
  EXPECT_EQ(read_text(out), "NoNewPrivs:\t0\n");
}

TEST(Bounded, CpuTimeEnds) {
  const auto [kind, message] = ended("while :; do :; done", {.cpu_seconds = 1});
  EXPECT_EQ(kind, ErrorKind::data);
  EXPECT_NE(message.find("their.root"), std::string::npos) << message;
}

}  // namespace
}  // namespace tessera::apps
