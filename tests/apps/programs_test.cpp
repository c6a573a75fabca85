// Programs that read a stranger's file: whatever becomes of them, the parent lives and names the
// file.
#include "apps/programs.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/file_io.h"

namespace tessera::apps {
namespace {

/// The kind and message of what `sh -c script` ends with; internal and "" where it ends well.
std::pair<ErrorKind, std::string> ended(const std::string& script, const ChildBounds& bounds = {}) {
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
  EXPECT_THROW(run_bounded({"/no/such/program"}, "x", {}), Error);
}

TEST(Bounded, TheLimitsHoldInTheChildAndNowhereElse) {
  const TempDir dir;
  const std::string out = (dir.path() / "limits").string(), big = (dir.path() / "big").string();
  ASSERT_EQ(
      ended(
          "{ ulimit -v; ulimit -n; ulimit -c; ulimit -t; grep NoNewPrivs /proc/self/status; } > " +
              out,
          {.memory = 1 << 30, .descriptors = 64, .cpu_seconds = 77, .new_privileges = false})
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

TEST(Bounded, TimeOnTheClockEnds) {
  const auto [kind, message] = ended("exec sleep 60", {.wall_seconds = 1});
  EXPECT_EQ(kind, ErrorKind::data);
  EXPECT_NE(message.find("their.root: its reader was ended by signal 14"), std::string::npos)
      << message;
}

TEST(Bounded, AReaderHasTimeInProportionToItsFile) {
  const TempDir dir;
  const auto path = dir.path() / "x";
  std::ofstream(path) << "x";
  const ChildBounds small = reader_bounds(path, 1);
  std::filesystem::resize_file(path, 1 << 30);  // sparse
  const ChildBounds large = reader_bounds(path, 1);
  EXPECT_LE(small.wall_seconds, 3600U);
  EXPECT_GE(large.wall_seconds, small.wall_seconds + 10'000);
  EXPECT_FALSE(small.new_privileges);
}

/// Whether a process of this number still runs; a zombie does not.
bool runs(const std::string& pid) {
  std::ifstream in("/proc/" + pid + "/stat");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const std::size_t state = text.rfind(") ");
  return state != std::string::npos && text[state + 2] != 'Z' && text[state + 2] != 'X';
}

TEST(ChildProcess, EndsWithItsParentHoweverThatEnds) {
  const TempDir dir;
  const std::string file = (dir.path() / "pid").string();
  const pid_t parent = ::fork();
  if (parent == 0) {
    ChildProcess({"sh", "-c",
                  "echo $$ > " + file + ".new; mv " + file + ".new " + file + "; exec sleep 100"})
        .wait();
    ::_exit(0);
  }
  for (int i = 0; i < 1000 && !std::filesystem::exists(file); ++i) {
    ::usleep(10'000);
  }
  const std::string pid = read_text(file).substr(0, read_text(file).find('\n'));
  EXPECT_TRUE(runs(pid));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  for (int i = 0; i < 1000 && runs(pid); ++i) {
    ::usleep(10'000);
  }
  EXPECT_FALSE(runs(pid));
}

TEST(ChildProcess, IsKilledWithItsObject) {
  const TempDir dir;
  const std::string file = (dir.path() / "late").string();
  { const ChildProcess child({"sh", "-c", "sleep 1; echo > " + file}); }
  ::usleep(1'500'000);
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST(Helpers, AreFoundBesideTheExecutableOrWhereOneSaysAndNowhereElse) {
  const TempDir dir;
  const auto here = dir.path() / "apps/python";
  std::filesystem::create_directories(here);
  std::ofstream(here / "mine.py") << "";
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  EXPECT_THROW(helper_command({}, "mine.py"), Error);
  EXPECT_EQ(helper_command({.python = "p", .scripts = "apps/python"}, "mine.py"),
            (std::vector<std::string>{"p", (here / "mine.py").string()}));
  EXPECT_THROW(helper_command({.python = "p", .scripts = "apps"}, "mine.py"), Error);
  std::filesystem::current_path(before);
}

}  // namespace
}  // namespace tessera::apps
