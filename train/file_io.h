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

  /// The one way to a final name: `write` makes a file or a directory at `temporary`, a name beside
  /// `path` that no other call of any process gets. It is then fsynced, renamed to `path`, and the
  /// parent directory is fsynced. What was at `path` before is replaced. If `write` or a step
  /// fails, nothing is left at `temporary`; leftovers of processes that died are removed first. A
  /// writer of a directory fsyncs the files in it itself.
  void replace(const std::filesystem::path& path,
               const std::function<void(const std::filesystem::path& temporary)>& write) const;
  /// replace() with this text as the content.
  void replace_text(const std::filesystem::path& path, std::string_view text) const;
  /// The last steps of replace(), for a file that another program has written to `temporary`.
  void commit_file(const std::filesystem::path& temporary, const std::filesystem::path& path) const;

  void sync_file(const std::filesystem::path& path) const;
  void sync_directory(const std::filesystem::path& path) const;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) const;
  /// With all its parents; each new one is durable.
  void make_directory(const std::filesystem::path& path) const;
  /// Removes a file, or a directory with its content; absent is no error.
  void remove_all(const std::filesystem::path& path) const;

 private:
  [[nodiscard]] bool fails(IoCall call) const;
};

/// A name beside `path` for a file or directory in the making: `path` + ".tmp.PID.HOST.NUMBER".
std::filesystem::path temporary_name(const std::filesystem::path& path);

/// Removes what processes that no longer live left in `directory` under names of temporary_name(),
/// for the target `name` or for all. What another host made is left alone for a day, since its
/// processes cannot be asked for.
void remove_leftovers(const std::filesystem::path& directory, const std::string& name = "");

/// The whole file. Throws Error(missing) or Error(io), and Error(data) beyond `limit` bytes, before
/// allocating.
std::string read_text(const std::filesystem::path& path, std::uint64_t limit = 1ULL << 30);

/// What a FileLock does while another process holds the lock.
enum class IfLocked : std::uint8_t { refuse, wait };

/// An exclusive flock on `path`, held until destruction, so that two processes never share a run
/// directory.
class FileLock {
 public:
  /// Throws Error(usage) when another process holds it and IfLocked::refuse is asked, Error(io)
  /// where the file cannot be made or the file system has no locks.
  explicit FileLock(const std::filesystem::path& path, IfLocked if_locked = IfLocked::refuse);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace tessera
