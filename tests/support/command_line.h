// The built executable from a test: its exit code and what it prints.
#pragma once

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "support/temp_dir.h"
#include "train/file_io.h"

extern char** environ;

namespace tessera {

struct Outcome {
  int code = -1;
  std::string out, err;
};

/// Runs `tessera ARGUMENTS` in the source directory; after `signal_after` microseconds, unless 0,
/// it gets SIGTERM. The streams go through files of `scratch`. `prefix` is shell code before all,
/// such as "ulimit -f 10;".
inline Outcome run_tessera(const TempDir& scratch, const std::string& arguments,
                           useconds_t signal_after = 0, const std::string& prefix = "") {
  const std::string out = (scratch.path() / "out").string(),
                    err = (scratch.path() / "err").string();
  const std::string line = prefix + "cd " TESSERA_SOURCE_DIR " && exec " TESSERA_EXECUTABLE " " +
                           arguments + " >" + out + " 2>" + err;
  const char* argv[] = {"sh", "-c", line.c_str(), nullptr};
  pid_t child = 0;
  ::posix_spawnp(&child, "sh", nullptr, nullptr, const_cast<char**>(argv), environ);
  if (signal_after > 0) {
    ::usleep(signal_after);
    ::kill(child, SIGTERM);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(out), read_text(err)};
}

}  // namespace tessera
