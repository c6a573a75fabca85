// RAII over the HDF5 C API: one-dimensional columns and root attributes. The only door to HDF5.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/column_type.h"
#include "train/file_io.h"

namespace tessera {

/// What a file says about one dataset.
struct ColumnInfo {
  ColumnType type = ColumnType::f32;
  std::vector<std::uint64_t> shape;
  std::uint64_t chunk = 0;  ///< elements of a chunk, all of which are decoded to read one; 0 = none
  bool checksummed = false;  ///< fletcher32 is in its filter pipeline
};

/// How a column is stored. fletcher32 is always on, last in the pipeline.
struct ColumnOptions {
  std::uint64_t chunk = 65536;  ///< elements; 65,536 for M-long columns, 16,384 for N-long ones
  int deflate = 1;              ///< zlib level, 0 = none
  bool shuffle = true;
};

/// An open HDF5 file. Names are paths ("pf/px"); groups are made as needed. All calls of all files
/// share one lock, as the library does. Errors: Error(missing) no such file, Error(data) content,
/// Error(io) disk, Error(resource) memory and descriptors.
class H5File {
 public:
  struct Impl;  // opaque
  /// A new file, made in memory until close() puts it on disk, since the library ends the program
  /// by a signal at its exit when a disk did not take the last of what it had to write. Memory: the
  /// file's compressed size. Superblock V110 (checksummed metadata), no time stamps: same content,
  /// same bytes.
  static H5File create(const std::filesystem::path& path, FileIo io = {});
  /// Read-only, file locking off, plug-in filters off. Where a program has more files open than its
  /// descriptors allow (most_open_files()), those used last are; the others are opened again when
  /// they are used, and refused with Error(data) if they have changed.
  static H5File open(const std::filesystem::path& path);
  ~H5File();
  H5File(H5File&&) noexcept;
  H5File& operator=(H5File&&) noexcept;

  /// Ends the file. A new one then appears under its name, replacing an old one, complete and
  /// durable as FileIo::replace_text() has it; throws Error(io) and leaves the old one otherwise.
  /// Without close() nothing of a new file is seen.
  void close();
  [[nodiscard]] const std::filesystem::path& path() const;

  /// Whether a dataset of that path exists behind hard links only.
  [[nodiscard]] bool has(std::string_view column) const;
  /// Paths of all datasets, sorted. Throws Error(data) at a soft, external or user-defined link.
  [[nodiscard]] std::vector<std::string> columns() const;
  /// Whether that dataset is one-dimensional and of plain numbers, as columns are.
  [[nodiscard]] bool is_column(std::string_view dataset) const;
  /// Type and extent; throws Error(data) for a virtual or externally stored dataset, a foreign
  /// filter, a type that is no plain number, or an extent that the stored bytes cannot fill (so
  /// nothing is allocated on a file's word).
  [[nodiscard]] ColumnInfo info(std::string_view column) const;
  /// Elements of a one-dimensional column; throws unless its rank is 1.
  [[nodiscard]] std::uint64_t size(std::string_view column) const;

  /// Reads elements [begin, begin + out.size()). Stored values are converted where the value is
  /// preserved: integers when each fits T, integers to floats when the stored type is exactly
  /// representable, f64 to f32 without overflow; anything else throws Error(data) naming file,
  /// column, row, expected, got.
  template <ColumnValue T>
  void read_into(std::string_view column, std::uint64_t begin, std::span<T> out) const {
    read_bytes(column, begin, out.size(), column_type<T>(), out.data());
  }
  template <ColumnValue T>
  [[nodiscard]] std::vector<T> read_range(std::string_view column, std::uint64_t begin,
                                          std::uint64_t count) const {
    check_range(column, begin, count);
    std::vector<T> values(count);
    read_into(column, begin, std::span<T>(values));
    return values;
  }
  template <ColumnValue T>
  [[nodiscard]] std::vector<T> read_column(std::string_view column) const {
    return read_range<T>(column, 0, size(column));
  }
  /// Some of the column's elements as stored, native byte order.
  [[nodiscard]] std::vector<std::byte> read_raw(std::string_view column, std::uint64_t begin,
                                                std::uint64_t count) const;

  /// An empty column of element type T and unlimited extent.
  template <ColumnValue T>
  void create_column(std::string_view column, const ColumnOptions& options = {}) {
    create_dataset(column, column_type<T>(), options);
  }
  /// Adds elements at the end of a column; T must be its type.
  template <ColumnValue T>
  void append(std::string_view column, std::span<const T> values) {
    append_bytes(column, column_type<T>(), values.data(), values.size());
  }
  /// create_column and append in one; takes any contiguous range (vector, span, array).
  template <std::ranges::contiguous_range R>
  void write_column(std::string_view column, const R& values, const ColumnOptions& options = {}) {
    using T = std::ranges::range_value_t<R>;
    create_column<T>(column, options);
    append(column, std::span<const T>(std::ranges::data(values), std::ranges::size(values)));
  }

  /// Attributes of the root group, or of the dataset or group `object`. Strings are stored with
  /// fixed length (inside checksummed metadata); integers as i64, or u32 where the argument is one.
  void write_attribute(std::string_view attribute, std::string_view value,
                       std::string_view object = "/");
  void write_attribute(std::string_view attribute, const char* value,
                       std::string_view object = "/") {
    write_attribute(attribute, std::string_view(value), object);
  }
  void write_attribute(std::string_view attribute, double value, std::string_view object = "/");
  void write_attribute(std::string_view attribute, std::uint32_t value,
                       std::string_view object = "/");
  void write_attribute(std::string_view attribute, std::int64_t value,
                       std::string_view object = "/");
  template <std::integral T>
  void write_attribute(std::string_view attribute, T value, std::string_view object = "/") {
    write_attribute(attribute, static_cast<std::int64_t>(value), object);
  }
  void write_attribute(std::string_view attribute, const std::vector<std::string>& values,
                       std::string_view object = "/");

  [[nodiscard]] bool has_attribute(std::string_view attribute, std::string_view object = "/") const;
  [[nodiscard]] std::vector<std::string> attributes(std::string_view object = "/") const;
  /// T is std::string, double, std::int64_t or std::vector<std::string> (also from a single
  /// string); throws Error(data) when absent or of another kind. Fixed and variable-length strings
  /// are both read.
  template <class T>
  [[nodiscard]] T read_attribute(std::string_view attribute, std::string_view object = "/") const;

 private:
  explicit H5File(std::unique_ptr<Impl> impl);
  void check_range(std::string_view column, std::uint64_t begin, std::uint64_t count) const;
  void read_bytes(std::string_view column, std::uint64_t begin, std::uint64_t count,
                  ColumnType want, void* out) const;
  void create_dataset(std::string_view column, ColumnType type, const ColumnOptions& options);
  void append_bytes(std::string_view column, ColumnType type, const void* values,
                    std::uint64_t count);
  std::unique_ptr<Impl> impl_;
};

template <>
std::string H5File::read_attribute(std::string_view attribute, std::string_view object) const;
template <>
double H5File::read_attribute(std::string_view attribute, std::string_view object) const;
template <>
std::int64_t H5File::read_attribute(std::string_view attribute, std::string_view object) const;
template <>
std::vector<std::string> H5File::read_attribute(std::string_view attribute,
                                                std::string_view object) const;

}  // namespace tessera
