// Where a result may be written, checked before the work that makes it.
#pragma once

#include <cstdint>
#include <filesystem>

namespace tessera {

/// How a destination takes bytes.
enum class Destination : std::uint8_t {
  file,   ///< a regular file, there or to be made: replaced as a whole
  stream  ///< a device, pipe, socket or descriptor of this process: written to, never replaced
};

/// What `path` is as a place to write to; symbolic links are followed. Throws Error(usage) for a
/// folder, Error(missing) where its folder does not exist, and Error(io) with the errno text where
/// neither the folder nor the stream may be written.
Destination check_destination(const std::filesystem::path& path);

/// check_destination() for results that only a file can hold, such as HDF5: a stream is
/// Error(usage).
void check_file_destination(const std::filesystem::path& path);

/// The file that writing to `path` would change: `path` itself, or the end of its symbolic links,
/// which need not exist.
std::filesystem::path link_target(const std::filesystem::path& path);

}  // namespace tessera
