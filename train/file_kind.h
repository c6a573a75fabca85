// What every reader asks before it opens a path: is it a file whose bytes are there? A FIFO or a
// device may block for ever or never end.
#pragma once

#include <filesystem>

namespace tessera {

/// Whether `path`, its links followed, is a regular file.
bool is_plain_file(const std::filesystem::path& path);

/// Throws unless `path`, its links followed, is a regular file: Error(missing) where nothing is
/// there, Error(data) for a directory, FIFO, device or socket, Error(io) where the system cannot
/// tell (no permission, too long a name, ...).
void check_plain_file(const std::filesystem::path& path);

}  // namespace tessera
