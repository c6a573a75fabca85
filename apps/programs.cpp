#include "apps/programs.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "core/check.h"

extern char** environ;

namespace tessera::apps {
namespace {

ErrorKind kind_of_exit(int code) {
  switch (code) {
    case 64:
      return ErrorKind::usage;
    case 65:
      return ErrorKind::data;
    case 66:
      return ErrorKind::missing;
    case 74:
      return ErrorKind::io;
    default:
      return ErrorKind::internal;
  }
}

}  // namespace

std::string script(const std::string& name) {
  const std::filesystem::path here = std::filesystem::path("apps/python") / name;
  std::error_code error;
  const auto executable = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto beside = executable.parent_path();  // of a build, then of an installed prefix
  for (const auto& candidate :
       {here, beside / "../.." / here, beside / "../share/tessera" / here}) {
    if (std::filesystem::exists(candidate, error)) {
      return candidate.lexically_normal().string();
    }
  }
  TESSERA_FAIL(ErrorKind::missing,
               "{}: not found; run from the root of the source tree, or install the project",
               here.string());
}

void run_program(const std::vector<std::string>& argv) {
  std::vector<char*> arguments;
  for (const std::string& a : argv) {
    arguments.push_back(const_cast<char*>(a.c_str()));
  }
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
  TESSERA_CHECK_KIND(ErrorKind::missing, error == 0, "cannot run {}: {}", argv[0],
                     std::strerror(error));
  int status = 0;
  ::waitpid(child, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 70;
  TESSERA_CHECK_KIND(kind_of_exit(code), code == 0, "{}: stopped; the line above says why",
                     argv.size() > 1 ? argv[1] : argv[0]);
}

}  // namespace tessera::apps
