#include "apps/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/check.h"
#include "train/destination.h"
#include "train/file_io.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

std::string lost(const std::string& where, int code) {
  return fmt::format("{}: cannot be written: {} (errno {})", where, std::strerror(code), code);
}

void check_out(bool good) {
  TESSERA_CHECK_KIND(ErrorKind::io, good, "{}", lost("standard output", errno));
}

void write_all(int descriptor, std::string_view text, const std::string& where) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    TESSERA_CHECK_KIND(ErrorKind::io, written > 0, "{}", lost(where, written < 0 ? errno : ENOSPC));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// The number of an open descriptor of this process that the path names, such as /dev/stdout; else
// -1. Opening such a path anew would begin at the start of the file behind it.
int descriptor_of(const fs::path& target) {
  std::error_code error;
  const fs::path folder = fs::weakly_canonical(target.parent_path(), error);
  const bool ours = folder == fs::weakly_canonical("/proc/self/fd", error);
  const std::string number = target.filename().string();
  return ours && number.find_first_not_of("0123456789") == std::string::npos ? std::stoi(number)
                                                                             : -1;
}

void write_stream(const std::string& destination, std::string_view text) {
  const fs::path target = link_target(destination);
  check_out(std::fflush(stdout) == 0);  // what was printed before comes first
  if (const int own = descriptor_of(target); own >= 0) {
    write_all(own, text, destination);
    return;
  }
  const int descriptor = ::open(target.c_str(), O_WRONLY | O_CLOEXEC);
  TESSERA_CHECK_KIND(ErrorKind::io, descriptor >= 0, "{}", lost(destination, errno));
  try {
    write_all(descriptor, text, destination);
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  TESSERA_CHECK_KIND(ErrorKind::io, ::close(descriptor) == 0, "{}", lost(destination, errno));
}

bool is_standard_output(const std::string& destination) {
  return destination.empty() || destination == "-";
}

}  // namespace

void write_out(std::string_view text) {
  check_out(std::fwrite(text.data(), 1, text.size(), stdout) == text.size());
}

void write_err(std::string_view text) {
  (void)!std::fwrite(text.data(), 1, text.size(), stderr);
  (void)std::fflush(stderr);
}

void write_result(const std::string& destination, std::string_view text) {
  if (is_standard_output(destination)) {
    write_out(text);
  } else if (check_destination(destination) == Destination::stream) {
    write_stream(destination, text);
  } else {
    FileIo().replace_text(link_target(destination), text);
  }
}

void check_output(const std::string& destination) {
  if (!is_standard_output(destination)) {
    (void)check_destination(destination);
  }
}

void guard_standard_streams() {
  (void)std::signal(SIGPIPE, SIG_IGN);
  // Open for the other direction, so that every use fails; the error stream's loss alone is silent.
  for (const auto& [descriptor, mode] :
       {std::pair{STDIN_FILENO, O_WRONLY}, std::pair{STDOUT_FILENO, O_RDONLY},
        std::pair{STDERR_FILENO, O_WRONLY}}) {
    if (::fcntl(descriptor, F_GETFD) < 0 && errno == EBADF) {
      (void)!::open("/dev/null", mode);  // takes the lowest free number: this one
    }
  }
}

int close_standard_output(int code) {
  const bool whole = std::ferror(stdout) == 0;  // write_out() has said otherwise, with its reason
  errno = 0;
  if (std::fclose(stdout) != 0 || !whole) {
    const int reason = errno != 0 ? errno : EIO;
    if (code == 0) {
      print_err("tessera: {} error: {}\n", name(ErrorKind::io), lost("standard output", reason));
      return exit_code(ErrorKind::io);
    }
  }
  return code;
}

}  // namespace tessera::apps
