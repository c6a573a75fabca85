#include "train/file_io.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include "core/check.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const char* operation, const fs::path& path, std::size_t bytes = 0) {
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

void write_fully(int descriptor, const fs::path& path, std::span<const std::byte> bytes) {
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

// Four hex digits of the host's name: process ids of another host say nothing here.
std::string host_tag() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("{:04x}", std::hash<std::string_view>()(host.data()) & 0xFFFFU);
}

constexpr std::string_view kTemporary = ".tmp.";

/// A name of temporary_name(), taken apart; older versions wrote no host.
struct TemporaryName {
  std::string target, host;
  pid_t process = 0;
};

std::optional<TemporaryName> parse_temporary(const std::string& name) {
  const std::size_t at = name.rfind(kTemporary);
  if (at == std::string::npos) {
    return std::nullopt;
  }
  TemporaryName parsed{.target = name.substr(0, at), .host = host_tag()};
  const std::string rest = name.substr(at + kTemporary.size());
  const char* end = rest.data() + rest.size();
  const auto [stop, code] = std::from_chars(rest.data(), end, parsed.process);
  if (code != std::errc{} || parsed.process <= 0 || (stop != end && *stop != '.')) {
    return std::nullopt;
  }
  if (stop != end) {
    const std::string host(stop + 1, end);
    parsed.host = host.substr(0, host.find('.'));
  }
  return parsed;
}

// A process that has ended and was not waited for yet still has its number.
bool alive(pid_t process) {
  if (::kill(process, 0) != 0 && errno == ESRCH) {
    return false;
  }
  std::ifstream in(fmt::format("/proc/{}/stat", process));
  std::string stat;
  std::getline(in, stat);
  const std::size_t name_end = stat.rfind(')');  // "PID (NAME) STATE ..."
  return name_end == std::string::npos || stat.substr(name_end + 1, 2) != " Z";
}

bool left_over(const fs::path& path, const TemporaryName& name) {
  if (name.host == host_tag()) {
    return !alive(name.process);
  }
  std::error_code code;
  const auto age = fs::file_time_type::clock::now() - fs::last_write_time(path, code);
  return !code && age > std::chrono::hours(24);
}

}  // namespace

fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> count{0};
  fs::path name = path;
  name += fmt::format("{}{}.{}.{}", kTemporary, ::getpid(), host_tag(), count++);
  return name;
}

void remove_leftovers(const fs::path& directory, const std::string& name) {
  std::error_code code;  // what cannot be listed or removed may stay
  std::vector<fs::path> found;
  const fs::path where = directory.empty() ? "." : directory;
  for (fs::directory_iterator entry(where, code), end; !code && entry != end;
       entry.increment(code)) {
    const auto parsed = parse_temporary(entry->path().filename().string());
    if (parsed && (name.empty() || parsed->target == name) && left_over(entry->path(), *parsed)) {
      found.push_back(entry->path());
    }
  }
  for (const fs::path& path : found) {
    fs::remove_all(path, code);
  }
}

// Whether the operation is to fail, with errno set.
bool FileIo::fails(IoCall call) const {
  const int code = before_call ? before_call(call) : 0;
  errno = code;
  return code != 0;
}

void FileIo::write_file(const fs::path& path,
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

void FileIo::write_text(const fs::path& path, std::string_view text) const {
  const std::span<const std::byte> piece = std::as_bytes(std::span(text.data(), text.size()));
  write_file(path, {&piece, 1});
}

void FileIo::replace(const fs::path& path,
                     const std::function<void(const fs::path& temporary)>& write) const {
  remove_leftovers(path.parent_path(), path.filename());
  const fs::path temporary = temporary_name(path);
  try {
    write(temporary);
    commit_file(temporary, path);
  } catch (const Error&) {
    std::error_code ignored;  // the first error is the one to tell
    fs::remove_all(temporary, ignored);
    throw;
  }
}

void FileIo::replace_text(const fs::path& path, std::string_view text) const {
  replace(path, [&](const fs::path& temporary) { write_text(temporary, text); });
}

void FileIo::commit_file(const fs::path& temporary, const fs::path& path) const {
  std::error_code ignored;
  if (fs::is_directory(temporary, ignored)) {
    sync_directory(temporary);
    remove_all(path);  // rename(2) takes an empty directory's place at most
  } else {
    sync_file(temporary);
  }
  rename(temporary, path);
  sync_directory(path.parent_path());
}

void FileIo::sync_file(const fs::path& path) const {
  if (fails({.kind = IoKind::sync, .path = path, .target = {}})) {
    fail("fsync", path);
  }
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.id < 0 || ::fsync(file.id) != 0 || file.close() != 0) {
    fail("fsync", path);
  }
}

void FileIo::sync_directory(const fs::path& path) const {
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

void FileIo::rename(const fs::path& from, const fs::path& to) const {
  if (fails({.kind = IoKind::rename, .path = from, .target = to}) ||
      ::rename(from.c_str(), to.c_str()) != 0) {
    fail("rename", to);
  }
}

void FileIo::make_directory(const fs::path& path) const {
  if (fails({.kind = IoKind::make_directory, .path = path, .target = {}})) {
    fail("create the directory", path);
  }
  std::error_code ignored;
  std::vector<fs::path> missing;
  for (fs::path p = path; !p.empty() && !fs::is_directory(p, ignored); p = p.parent_path()) {
    if (p.has_filename()) {  // "a/b/" ends with an empty name
      missing.push_back(p);
    }
  }
  for (auto p = missing.rbegin(); p != missing.rend(); ++p) {
    const bool made = ::mkdir(p->c_str(), 0777) == 0;
    if (!made && (errno != EEXIST || !fs::is_directory(*p, ignored))) {
      errno = errno == EEXIST ? ENOTDIR : errno;
      fail("create the directory", *p);
    }
    sync_directory(p->parent_path());
  }
}

void FileIo::remove_all(const fs::path& path) const {
  std::error_code code;
  if (!fs::exists(fs::symlink_status(path, code))) {
    return;
  }
  if (fails({.kind = IoKind::remove, .path = path, .target = {}})) {
    fail("remove", path);
  }
  fs::remove_all(path, code);
  if (code) {
    errno = code.value();
    fail("remove", path);
  }
}

std::string read_text(const fs::path& path, std::uint64_t limit) {
  std::error_code code;
  TESSERA_CHECK_KIND(ErrorKind::missing, fs::is_regular_file(path, code),
                     "{}: expected a file, got nothing there", path.string());
  const std::uint64_t bytes = fs::file_size(path, code);
  TESSERA_CHECK_KIND(ErrorKind::io, !code, "{}: cannot ask for its size: {}", path.string(),
                     code.message());
  TESSERA_CHECK_KIND(ErrorKind::data, bytes <= limit, "{}: expected at most {} bytes, got {}",
                     path.string(), limit, bytes);
  std::string text(bytes, '\0');
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(bytes));
  TESSERA_CHECK_KIND(ErrorKind::io, in.good() || (in.is_open() && bytes == 0),
                     "{}: cannot read {} bytes: {} (errno {})", path.string(), bytes,
                     std::strerror(errno), errno);
  return text;
}

FileLock::FileLock(const fs::path& path, IfLocked if_locked)
    : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) {
    fail("open", path);
  }
  const int how = if_locked == IfLocked::refuse ? LOCK_EX | LOCK_NB : LOCK_EX;
  int code = 0;
  do {
    code = ::flock(descriptor_, how) == 0 ? 0 : errno;
  } while (code == EINTR);
  if (code != 0) {
    ::close(std::exchange(descriptor_, -1));
    TESSERA_CHECK(code != EWOULDBLOCK, "{}: another process works in this run directory",
                  path.string());
    errno = code;
    fail("lock", path);
  }
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

}  // namespace tessera
