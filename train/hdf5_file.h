// The state of an open HDF5 file and the steps that reading, writing and attributes share.
// For train/hdf5*.cpp alone.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "train/hdf5.h"
#include "train/hdf5_handles.h"

namespace tessera {

/// A path without its leading slashes.
std::string_view relative_name(std::string_view path);

/// All members are called with the Session held. Errors are Error(data) naming file and dataset.
struct H5File::Impl {
  std::filesystem::path path;
  hdf5::Id file;
  bool writable = false;
  // Open datasets, so that each keeps its chunk cache between reads.
  std::map<std::string, hdf5::Id, std::less<>> open_datasets;

  [[noreturn]] void fail(std::string_view column, std::string_view what) const;
  [[noreturn]] void fail_attribute(std::string_view attribute, std::string_view what) const;

  /// Walks a path link by link, since H5Dopen would follow soft and external links; false where
  /// nothing is.
  [[nodiscard]] bool hard_linked(std::string_view column) const;
  /// The open dataset of that path.
  hid_t dataset(std::string_view column);
  /// The identifier of a group or dataset that carries attributes.
  [[nodiscard]] hdf5::Id object(std::string_view name) const;

  ColumnInfo info(std::string_view column);
  std::uint64_t size(std::string_view column);
  void read_stored(std::string_view column, ColumnType type, std::uint64_t begin,
                   std::uint64_t count, void* out);
};

}  // namespace tessera
