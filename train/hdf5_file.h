// The state of an open HDF5 file and the steps that reading, writing and attributes share.
// For train/hdf5*.cpp alone.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "train/hdf5.h"
#include "train/hdf5_handles.h"
#include "train/hdf5_parking.h"

namespace tessera {

/// A path without its leading slashes.
std::string_view relative_name(std::string_view path);

/// A new file, which the library writes into memory.
struct NewFile {
  std::unique_ptr<hdf5::Image> image = std::make_unique<hdf5::Image>();  // it outlives `id`
  hdf5::Id id;
  hdf5::OpenDatasets datasets;
  FileIo io;  ///< puts it on disk

  /// Ends the file: its bytes are in `image` then. False if the library could not.
  bool end();
};

/// All members are called with the Session held. Errors are Error(data) naming file and dataset.
struct H5File::Impl {
  std::filesystem::path path;
  std::variant<NewFile, hdf5::ParkedFile> state;

  Impl(const std::filesystem::path& file, FileIo io) : path(file), state(NewFile{}) {
    std::get<NewFile>(state).io = std::move(io);
  }
  explicit Impl(const std::filesystem::path& file)
      : path(file), state(std::in_place_type<hdf5::ParkedFile>, file) {}

  [[nodiscard]] bool writable() const { return std::holds_alternative<NewFile>(state); }
  /// The open file; one for reading is opened again where it was closed for others.
  [[nodiscard]] hid_t file();
  hdf5::OpenDatasets& datasets();

  [[noreturn]] void fail(std::string_view column, std::string_view what) const;
  [[noreturn]] void fail_attribute(std::string_view attribute, std::string_view what) const;

  /// Walks a path link by link, since H5Dopen would follow soft and external links; false where
  /// nothing is.
  [[nodiscard]] bool hard_linked(std::string_view column);
  /// The open dataset of that path.
  hid_t dataset(std::string_view column);
  /// The identifier of a group or dataset that carries attributes.
  [[nodiscard]] hdf5::Id object(std::string_view name);

  ColumnInfo info(std::string_view column);
  std::uint64_t size(std::string_view column);
  void read_stored(std::string_view column, ColumnType type, std::uint64_t begin,
                   std::uint64_t count, void* out);
};

}  // namespace tessera
