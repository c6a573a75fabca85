// Files open for reading, of which only some are open at a time: a dataset may have more files than
// a process may have descriptors. For train/hdf5*.cpp alone.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "train/hdf5_handles.h"

namespace tessera::hdf5 {

/// Open datasets by their path, so that each keeps its chunk cache between calls.
using OpenDatasets = std::map<std::string, Id, std::less<>>;

/// A file for reading. It is opened when it is used, and closed again when too many others were
/// used since; what was changed in between is refused. All members are called with the Session
/// held.
class ParkedFile {
 public:
  /// Nothing is opened yet.
  explicit ParkedFile(std::filesystem::path path) : path_(std::move(path)) {}
  ~ParkedFile();
  ParkedFile(const ParkedFile&) = delete;
  ParkedFile& operator=(const ParkedFile&) = delete;

  /// The open file. Valid until another ParkedFile is used. Throws Error(missing) without a file,
  /// Error(data) unless it is a plain file of HDF5 and the same as at the first call,
  /// Error(resource) where the process may not open another, and Error(io) where it may not be
  /// read.
  hid_t id();

  OpenDatasets datasets;

 private:
  void open();
  void close();
  void check_same(const struct stat& now);

  std::filesystem::path path_;
  Id id_;
  std::optional<struct stat> first_;  ///< what the file was when it was first opened
};

/// How many files may be open for reading at a time: a quarter of the process's descriptors, since
/// logs, checkpoints and pipes need theirs, and at most 64, since each has caches.
std::size_t most_open_files();

}  // namespace tessera::hdf5
