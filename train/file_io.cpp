#include "train/file_io.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "core/check.h"

namespace tessera {
namespace {

[[noreturn]] void fail(const char* operation, const std::filesystem::path& path,
                       std::size_t bytes = 0) {
  const int code = errno;
  const std::string size = bytes > 0 ? fmt::format(" of {} bytes", bytes) : "";
  TESSERA_FAIL(ErrorKind::io, "{}: {}{} failed: {} (errno {})", path.string(), operation, size,
               std::strerror(code), code);
}

// A descriptor that closes itself.
struct Descriptor {
  int id;
  explicit Descriptor(int descriptor) : id(descriptor) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int close() {
    const int old = std::exchange(id, -1);
    return old >= 0 ? ::close(old) : 0;
  }
};

void write_fully(int descriptor, const std::filesystem::path& path,
                 std::span<const std::byte> bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const std::size_t count = std::min<std::size_t>(bytes.size() - done, 1U << 30);
    const ssize_t written = ::write(descriptor, bytes.data() + done, count);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      fail("write", path, bytes.size());
    }
    done += static_cast<std::size_t>(written);
  }
}

}  // namespace

// Whether the operation is to fail, with errno set.
bool FileIo::fails(IoCall call) const {
  const int code = before_call ? before_call(call) : 0;
  errno = code;
  return code != 0;
}

void FileIo::write_file(const std::filesystem::path& path,
                        std::span<const std::span<const std::byte>> pieces) const {
  if (fails({.kind = IoKind::create, .path = path, .target = {}})) {
    fail("create", path);
  }
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (file.id < 0) {
    fail("create", path);
  }
  for (const auto piece : pieces) {
    if (fails({.kind = IoKind::write, .path = path, .target = {}, .bytes = piece.size()})) {
      const int code = errno;
      write_fully(file.id, path, piece.first(piece.size() / 2));
      errno = code;
      fail("write", path, piece.size());
    }
    write_fully(file.id, path, piece);
  }
  if (fails({.kind = IoKind::sync, .path = path, .target = {}}) || ::fsync(file.id) != 0) {
    fail("fsync", path);
  }
  if (file.close() != 0) {
    fail("close", path);
  }
}

void FileIo::write_text(const std::filesystem::path& path, std::string_view text) const {
  const std::span<const std::byte> piece = std::as_bytes(std::span(text.data(), text.size()));
  write_file(path, {&piece, 1});
}

void FileIo::replace_text(const std::filesystem::path& path, std::string_view text) const {
  std::filesystem::path temporary = path;
  temporary += fmt::format(".tmp.{}", ::getpid());
  remove_all(temporary);
  write_text(temporary, text);
  rename(temporary, path);
  sync_directory(path.parent_path());
}

void FileIo::sync_directory(const std::filesystem::path& path) const {
  if (fails({.kind = IoKind::sync_directory, .path = path, .target = {}})) {
    fail("fsync of the directory", path);
  }
  const Descriptor directory(
      ::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some file systems refuse fsync of a directory (EINVAL); there is nothing more to be done there.
  if (directory.id < 0 || (::fsync(directory.id) != 0 && errno != EINVAL)) {
    fail("fsync of the directory", path);
  }
}

void FileIo::rename(const std::filesystem::path& from, const std::filesystem::path& to) const {
  if (fails({.kind = IoKind::rename, .path = from, .target = to}) ||
      ::rename(from.c_str(), to.c_str()) != 0) {
    fail("rename", to);
  }
}

void FileIo::make_directory(const std::filesystem::path& path) const {
  std::error_code code;
  if (fails({.kind = IoKind::make_directory, .path = path, .target = {}})) {
    fail("create the directory", path);
  }
  std::filesystem::create_directories(path, code);
  if (code) {
    errno = code.value();
    fail("create the directory", path);
  }
}

void FileIo::remove_all(const std::filesystem::path& path) const {
  if (!std::filesystem::exists(std::filesystem::symlink_status(path))) {
    return;
  }
  if (fails({.kind = IoKind::remove, .path = path, .target = {}})) {
    fail("remove", path);
  }
  std::error_code code;
  std::filesystem::remove_all(path, code);
  if (code) {
    errno = code.value();
    fail("remove", path);
  }
}

std::string read_text(const std::filesystem::path& path, std::uint64_t limit) {
  TESSERA_CHECK_KIND(ErrorKind::missing, std::filesystem::is_regular_file(path),
                     "{}: expected a file, got nothing there", path.string());
  const std::uint64_t bytes = std::filesystem::file_size(path);
  TESSERA_CHECK_KIND(ErrorKind::data, bytes <= limit, "{}: expected at most {} bytes, got {}",
                     path.string(), limit, bytes);
  std::string text(bytes, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(bytes));
  TESSERA_CHECK_KIND(ErrorKind::io, in.good() || bytes == 0, "{}: cannot read {} bytes",
                     path.string(), bytes);
  return text;
}

FileLock::FileLock(const std::filesystem::path& path)
    : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) {
    fail("open", path);
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    ::close(std::exchange(descriptor_, -1));
    TESSERA_FAIL(ErrorKind::usage, "{}: another process works in this run directory",
                 path.string());
  }
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

}  // namespace tessera
