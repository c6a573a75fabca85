#include "train/destination.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr int kMostLinks = 40;  // as Linux follows

[[noreturn]] void fail_to_write(const fs::path& path) {
  const int code = errno;
  TESSERA_FAIL(ErrorKind::io, "{}: cannot be written: {} (errno {})", path.string(),
               std::strerror(code), code);
}

// A link of /proc/PID/fd leads to an open description, whose name may be gone or not be a path.
bool leads_to_descriptor(const fs::path& path) {
  std::error_code error;
  const fs::path folder = fs::weakly_canonical(path.parent_path(), error);
  return folder.string().starts_with("/proc/") && folder.filename() == "fd";
}

}  // namespace

fs::path link_target(const fs::path& path) {
  fs::path target = path;
  std::error_code error;
  for (int i = 0; i < kMostLinks && fs::is_symlink(target, error); ++i) {
    if (leads_to_descriptor(target)) {
      break;
    }
    const fs::path next = fs::read_symlink(target, error);
    target = next.is_absolute() ? next : target.parent_path() / next;
  }
  return target;
}

Destination check_destination(const fs::path& path) {
  std::error_code error;
  const fs::path target = link_target(path);
  const fs::file_status status = fs::status(target, error);
  TESSERA_CHECK(!fs::is_directory(status), "{}: expected a file to write, got a folder",
                path.string());
  if (leads_to_descriptor(target) || (fs::exists(status) && !fs::is_regular_file(status))) {
    if (::access(target.c_str(), W_OK) != 0) {
      fail_to_write(path);
    }
    return Destination::stream;
  }
  TESSERA_CHECK(!path.empty() && target.has_filename(), "'{}': expected a file to write, got none",
                path.string());
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  TESSERA_CHECK_KIND(ErrorKind::missing, fs::is_directory(folder, error),
                     "{}: cannot be written: {} is no folder", path.string(), folder.string());
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    fail_to_write(path);
  }
  return Destination::file;
}

void check_file_destination(const fs::path& path) {
  TESSERA_CHECK(check_destination(path) == Destination::file,
                "{}: expected a file to write, got a device, pipe or socket", path.string());
}

}  // namespace tessera
