// What all calls of the HDF5 C library share here: its lock, owned identifiers, its element types.
// For train/hdf5*.cpp alone.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <optional>
#include <string>
#include <utility>

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
  void reset() {
    if (id_ >= 0) {
      H5Idec_ref(id_);
    }
    id_ = -1;
  }

 private:
  hid_t id_ = -1;
};

/// The library's type of an element in memory and, little-endian, in files.
hid_t memory_type(ColumnType type);
hid_t file_type(ColumnType type);
/// The column type of a stored type, if it is a plain number of ours in either byte order.
std::optional<ColumnType> stored_type(hid_t type);

}  // namespace tessera::hdf5
