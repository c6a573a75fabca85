// Durable file operations, each announced to a hook first, so that tests can fail or cut off any of
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

enum class IoKind : std::uint8_t {
  create,
  write,
  sync,
  sync_directory,
  rename,
  make_directory,
  remove
};

/// One operation about to happen.
struct IoCall {
  IoKind kind;
  std::filesystem::path path;
  std::filesystem::path target;  ///< rename only
  std::size_t bytes = 0;         ///< write only
};

/// The operations of the commit protocol. Errors throw Error(io) naming the file, the bytes and the
/// errno text.
class FileIo {
 public:
  /// Called before each operation: 0 lets it happen, an errno makes it fail with that (a write
  /// after half of its bytes), an exception prevents it.
  std::function<int(const IoCall&)> before_call;

  /// Creates a file that must not exist, writes the pieces in order, fsyncs and closes it.
  void write_file(const std::filesystem::path& path,
                  std::span<const std::span<const std::byte>> pieces) const;
  void write_text(const std::filesystem::path& path, std::string_view text) const;
  /// Temporary name, fsync, rename over `path`, fsync of the directory.
  void replace_text(const std::filesystem::path& path, std::string_view text) const;
  void sync_directory(const std::filesystem::path& path) const;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) const;
  void make_directory(const std::filesystem::path& path) const;
  /// Removes a file, or a directory with its content; absent is no error.
  void remove_all(const std::filesystem::path& path) const;

 private:
  [[nodiscard]] bool fails(IoCall call) const;
};

/// The whole file. Throws Error(missing) or Error(io), and Error(data) beyond `limit` bytes, before
/// allocating.
std::string read_text(const std::filesystem::path& path, std::uint64_t limit = 1ULL << 30);

/// An exclusive flock on `path`, held until destruction, so that two processes never share a run
/// directory.
class FileLock {
 public:
  /// Throws Error(usage) when another process holds it.
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace tessera
