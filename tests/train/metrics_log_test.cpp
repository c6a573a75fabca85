#include "train/metrics_log.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <fstream>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/file_io.h"

namespace tessera {
namespace {

TEST(MetricsLog, NumbersAreShortestAndReadBackEqual) {
  EXPECT_EQ(metrics_line(3, {{"loss", 0.1}, {"lr", 1e-5}, {"n", 4}}),
            "{\"step\":3,\"loss\":0.1,\"lr\":1e-05,\"n\":4}\n");
  EXPECT_EQ(metrics_line(0, {{"loss", std::nan("")}}), "{\"step\":0,\"loss\":null}\n");
}

TEST(MetricsLog, AnInterruptedRunEndsWithTheFileOfAnUninterruptedOne) {
  const TempDir dir;
  const auto write = [](MetricsLog& log, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t s = from; s <= to; ++s) {
      log.write(s, {{"loss", 1.0 / static_cast<double>(s)}});
    }
  };
  {
    MetricsLog whole(dir.path() / "a");
    write(whole, 1, 20);
  }
  {
    MetricsLog first(dir.path() / "b");
    write(first, 1, 12);
  }
  for (const char* torn : {"", "{\"step\":13,\"lo", "{\"step\":1"}) {
    std::ofstream(dir.path() / "b", std::ios::app) << torn;
    MetricsLog second(dir.path() / "b", 7);  // the last checkpoint
    write(second, 8, 20);
    EXPECT_EQ(read_text(dir.path() / "a"), read_text(dir.path() / "b"));
  }
}

TEST(MetricsLog, AFreshRunStartsWithAnEmptyFile) {
  const TempDir dir;
  std::ofstream(dir.path() / "a") << "old\n";
  { MetricsLog log(dir.path() / "a"); }
  EXPECT_EQ(read_text(dir.path() / "a"), "");
}

// A disk that takes a part of a line: the message says so, and no torn line stays.
TEST(MetricsLog, AFullDiskIsAnIoErrorAndTearsNoLine) {
  const TempDir dir;
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100, 100};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      MetricsLog log(dir.path() / "a");
      for (std::uint64_t s = 1; s < 50; ++s) {
        log.write(s, {{"loss", 0.5}});
      }
      ::_exit(0);
    } catch (const Error& e) {
      const bool named = e.message().find((dir.path() / "a").string()) != std::string::npos &&
                         e.message().find("errno") != std::string::npos;
      ::_exit(named ? exit_code(e.kind()) : 1);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 74);
  const std::string text = read_text(dir.path() / "a");
  EXPECT_EQ(text,
            "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.5}\n{\"step\":3,\"loss\":0.5}\n"
            "{\"step\":4,\"loss\":0.5}\n");
}

}  // namespace
}  // namespace tessera
