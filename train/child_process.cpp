#include "train/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace tessera {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& argv) {
  std::vector<char*> list;
  for (const std::string& a : argv) {
    list.push_back(const_cast<char*>(a.c_str()));
  }
  list.push_back(nullptr);
  return list;
}

// The functions up to run_child() run between fork and exec, so they make system calls only.

void lower(int resource, std::uint64_t most) {
  if (most == ChildBounds::kUnbounded) {
    return;
  }
  rlimit limit{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  limit.rlim_cur = limit.rlim_max = std::min<rlim_t>(limit.rlim_max, most);
  ::setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

void confine(const ChildBounds& bounds) {
  lower(RLIMIT_AS, bounds.memory);
  lower(RLIMIT_FSIZE, bounds.file);
  lower(RLIMIT_NOFILE, bounds.descriptors);
  lower(RLIMIT_CPU, bounds.cpu_seconds);
  if (!bounds.new_privileges) {
    lower(RLIMIT_CORE, 0);
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  }
  if (bounds.wall_seconds != ChildBounds::kUnbounded) {
    ::signal(SIGALRM, SIG_DFL);  // an ignored signal would stay ignored
    sigset_t clock;
    ::sigemptyset(&clock);
    ::sigaddset(&clock, SIGALRM);
    ::sigprocmask(SIG_UNBLOCK, &clock, nullptr);
    ::alarm(static_cast<unsigned>(std::min<std::uint64_t>(bounds.wall_seconds, 1U << 30)));
  }
}

// The parent may have ended before the kernel knew that its death is to end the child.
void die_with(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) {
    ::_exit(1);
  }
}

struct Launch {
  char* const* arguments;
  const ChildBounds& bounds;
  int standard_output;
  int report;  // a pipe that exec closes; an errno in it says why exec failed
  pid_t parent;
};

[[noreturn]] void run_child(const Launch& launch) {
  die_with(launch.parent);
  confine(launch.bounds);
  if (launch.standard_output < 0 || ::dup2(launch.standard_output, STDOUT_FILENO) >= 0) {
    ::execvp(launch.arguments[0], launch.arguments);
  }
  const int reason = errno;
  const ssize_t told = ::write(launch.report, &reason, sizeof reason);
  ::_exit(told < 0 ? 126 : 127);
}

// The errno that the child wrote, or 0 where exec closed the pipe.
int failure_in(int report) {
  int reason = 0;
  ssize_t got = 0;
  do {
    got = ::read(report, &reason, sizeof reason);
  } while (got < 0 && errno == EINTR);
  return got == sizeof reason ? reason : 0;
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

ChildBounds reader_bounds(const std::filesystem::path& path, std::uint64_t memory) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  const std::uint64_t megabytes = error ? 0 : size >> 20U;
  const std::uint64_t seconds = 600 + 20 * megabytes;
  return {.memory = memory,
          .file = std::uint64_t{64} << 30U,
          .descriptors = 256,
          .cpu_seconds = seconds,
          .wall_seconds = seconds,
          .new_privileges = false};
}

ErrorKind kind_of_exit(int code) {
  constexpr std::array kKinds{ErrorKind::usage, ErrorKind::data, ErrorKind::missing,
                              ErrorKind::resource, ErrorKind::io};
  const auto* kind = std::ranges::find(kKinds, code, exit_code);
  return kind == kKinds.end() ? ErrorKind::internal : *kind;
}

ChildProcess::ChildProcess(const std::vector<std::string>& argv, const ChildBounds& bounds,
                           int standard_output) {
  TESSERA_CHECK(!argv.empty(), "child process: expected a program, got none");
  int ends[2];
  TESSERA_CHECK_KIND(ErrorKind::resource, ::pipe2(ends, O_CLOEXEC) == 0, "pipe: {}",
                     std::strerror(errno));
  auto arguments = pointers(argv);
  const Launch launch{arguments.data(), bounds, standard_output, ends[1], ::getpid()};
  id_ = ::fork();
  const int reason = errno;
  if (id_ == 0) {
    run_child(launch);
  }
  ::close(ends[1]);
  const int failure = id_ > 0 ? failure_in(ends[0]) : 0;
  ::close(ends[0]);
  TESSERA_CHECK_KIND(ErrorKind::resource, id_ > 0, "cannot fork: {}", std::strerror(reason));
  if (failure != 0) {
    wait();
    TESSERA_FAIL(ErrorKind::missing, "cannot run {}: {}", argv[0], std::strerror(failure));
  }
}

ChildProcess::~ChildProcess() {
  if (id_ > 0) {
    ::kill(id_, SIGKILL);
    wait();
  }
}

ChildProcess::End ChildProcess::wait() {
  const int status = wait_for(id_);
  id_ = -1;
  return WIFSIGNALED(status) ? End{.code = 0, .signal = WTERMSIG(status)}
                             : End{.code = WEXITSTATUS(status), .signal = 0};
}

}  // namespace tessera
