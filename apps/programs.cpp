#include "apps/programs.h"

#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "train/native_file.h"

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
    case 71:
      return ErrorKind::resource;
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

namespace {

std::vector<char*> pointers(const std::vector<std::string>& argv) {
  std::vector<char*> list;
  for (const std::string& a : argv) {
    list.push_back(const_cast<char*>(a.c_str()));
  }
  list.push_back(nullptr);
  return list;
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

void check_exit(int code, const std::vector<std::string>& argv) {
  TESSERA_CHECK_KIND(kind_of_exit(code), code == 0, "{}: stopped; the line above says why",
                     argv.size() > 1 ? argv[1] : argv[0]);
}

void lower(int resource, std::uint64_t most) {
  rlimit limit{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  limit.rlim_cur = limit.rlim_max = std::min<rlim_t>(limit.rlim_max, most);
  ::setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

// Between fork and exec: system calls only.
void confine(const Bounds& bounds) {
  lower(RLIMIT_AS, bounds.memory);
  lower(RLIMIT_FSIZE, bounds.file);
  lower(RLIMIT_NOFILE, bounds.descriptors);
  lower(RLIMIT_CPU, bounds.cpu_seconds);
  lower(RLIMIT_CORE, 0);
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

}  // namespace

void run_program(const std::vector<std::string>& argv) {
  auto arguments = pointers(argv);
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
  TESSERA_CHECK_KIND(ErrorKind::missing, error == 0, "cannot run {}: {}", argv[0],
                     std::strerror(error));
  const int status = wait_for(child);
  check_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 70, argv);
}

namespace {

/// Its exit code. Throws where a signal ended it, or it cannot start.
int bounded(const std::vector<std::string>& argv, const std::string& file, const Bounds& bounds) {
  constexpr int kCannotRun = 127;
  auto arguments = pointers(argv);
  const pid_t child = ::fork();
  TESSERA_CHECK_KIND(ErrorKind::resource, child >= 0, "cannot fork: {}", std::strerror(errno));
  if (child == 0) {
    confine(bounds);
    ::execvp(arguments[0], arguments.data());
    ::_exit(kCannotRun);
  }
  const int status = wait_for(child);
  TESSERA_CHECK_KIND(ErrorKind::data, WIFEXITED(status),
                     "{}: its reader was ended by signal {} ({})", file, WTERMSIG(status),
                     strsignal(WTERMSIG(status)));
  TESSERA_CHECK_KIND(ErrorKind::missing, WEXITSTATUS(status) != kCannotRun, "cannot run {}",
                     argv[0]);
  return WEXITSTATUS(status);
}

}  // namespace

void run_bounded(const std::vector<std::string>& argv, const std::string& file,
                 const Bounds& bounds) {
  check_exit(bounded(argv, file, bounds), argv);
}

// AddressSanitizer and ThreadSanitizer reserve terabytes of address space.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kShadowed = true;
#else
constexpr bool kShadowed = false;
#endif

void check_foreign_file(const std::string& path) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (self.filename() != "tessera") {
    check_native_file(path);
    return;
  }
  Bounds bounds;  // columns are read whole, and may be compressed
  bounds.memory =
      kShadowed ? RLIM_INFINITY : bounds.memory + 8 * std::filesystem::file_size(path, error);
  const int code = bounded({self.string(), "check-native", path}, path, bounds);
  TESSERA_CHECK_KIND(kind_of_exit(code), code == 0, "");
}

}  // namespace tessera::apps
