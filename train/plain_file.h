// Opening a file for reading with the system's own words for what goes wrong.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <span>

namespace tessera {

/// A plain file open for reading; a folder, device, pipe or socket is refused without waiting for
/// it.
class PlainFile {
 public:
  /// Throws Error(missing) where there is nothing, Error(data) unless it is a plain file,
  /// Error(resource) where the process may not open another, and Error(io) where it may not be
  /// read; the last two with the errno text.
  explicit PlainFile(std::filesystem::path path);
  ~PlainFile();
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  [[nodiscard]] const struct stat& status() const { return status_; }
  /// The next bytes; fewer than asked for, and at last none, at the end of the file. Throws
  /// Error(io).
  std::size_t read(std::span<std::byte> out);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  struct stat status_ {};
};

}  // namespace tessera
