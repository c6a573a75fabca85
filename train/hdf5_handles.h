// What all calls of the HDF5 C library share here: its lock, owned identifiers, its element types.
// For train/hdf5*.cpp alone.
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/column_type.h"

namespace tessera::hdf5 {

/// Holds the lock and keeps the library from printing its error stack. The library has one global
/// lock of its own, if any; ours makes the order of calls and the error stack ours.
class Session {
 public:
  Session();

 private:
  std::lock_guard<std::mutex> lock_;
};

/// The innermost message of the library's error stack, which is cleared.
std::string library_message();

/// An owned identifier of any HDF5 kind.
class Id {
 public:
  Id() = default;
  explicit Id(hid_t id) : id_(id) {}
  ~Id() { reset(); }
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Id& operator=(Id&& other) noexcept {
    reset();
    id_ = std::exchange(other.id_, -1);
    return *this;
  }
  Id(const Id&) = delete;
  Id& operator=(const Id&) = delete;
  operator hid_t() const { return id_; }  // NOLINT: it is passed to the C API everywhere
  [[nodiscard]] bool valid() const { return id_ >= 0; }
  void reset() { (void)close(); }
  /// Gives the identifier back; false if the library could not, as when data cannot be written.
  bool close() {
    const hid_t id = std::exchange(id_, -1);
    return id < 0 || H5Idec_ref(id) >= 0;
  }

 private:
  hid_t id_ = -1;
};

/// The bytes of a file that the library writes into memory.
using Image = std::vector<std::byte>;

/// Lets a file that is made with these access properties live in `image`, which holds the whole
/// file once that is closed. `image` must live until then.
bool write_into(hid_t access, Image& image);
/// The bytes of a closed file of superblock version 2 or 3, without what the library had reserved
/// behind its end and given back.
std::string_view content(const Image& image);

/// The library's type of an element in memory and, little-endian, in files.
hid_t memory_type(ColumnType type);
hid_t file_type(ColumnType type);
/// The column type of a stored type, if it is a plain number of ours in either byte order.
std::optional<ColumnType> stored_type(hid_t type);

}  // namespace tessera::hdf5
