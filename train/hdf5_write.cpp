// Writing columns: chunked, unlimited, fletcher32 last, no time stamps.
#include "core/check.h"
#include "train/hdf5_file.h"

namespace tessera {

using hdf5::Id;
using hdf5::library_message;
using hdf5::Session;

namespace {

// Groups are made one by one, since intermediate groups made by the library would carry time
// stamps.
void make_groups(H5File::Impl& f, const std::string& column) {
  const Id properties(H5Pcreate(H5P_GROUP_CREATE));
  H5Pset_obj_track_times(properties, false);
  for (std::size_t end = column.find('/'); end != std::string::npos;
       end = column.find('/', end + 1)) {
    const std::string group = column.substr(0, end);
    if (H5Lexists(f.file(), group.c_str(), H5P_DEFAULT) <= 0) {
      const Id id(H5Gcreate2(f.file(), group.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT));
      if (!id.valid()) {
        TESSERA_FAIL(ErrorKind::resource, "{}: cannot create group '{}': {}", f.path.string(),
                     group, library_message());
      }
    }
  }
}

}  // namespace

void H5File::create_dataset(std::string_view column, ColumnType type,
                            const ColumnOptions& options) {
  TESSERA_CHECK(impl_->writable(), "{}: is open for reading, cannot create '{}'",
                impl_->path.string(), column);
  TESSERA_CHECK(options.chunk > 0 && options.deflate >= 0 && options.deflate <= 9,
                "write_column '{}': chunk must be positive and deflate 0 to 9, got {} and {}",
                column, options.chunk, options.deflate);
  const Session session;
  const std::string clean(relative_name(column));
  make_groups(*impl_, clean);
  const Id properties(H5Pcreate(H5P_DATASET_CREATE));
  const hsize_t chunk = options.chunk, zero = 0, unlimited = H5S_UNLIMITED;
  H5Pset_obj_track_times(properties, false);
  H5Pset_chunk(properties, 1, &chunk);
  if (options.shuffle && width(type) > 1) {
    H5Pset_shuffle(properties);
  }
  if (options.deflate > 0) {
    H5Pset_deflate(properties, static_cast<unsigned>(options.deflate));
  }
  H5Pset_fletcher32(properties);
  const Id space(H5Screate_simple(1, &zero, &unlimited));
  Id id(H5Dcreate2(impl_->file(), clean.c_str(), hdf5::file_type(type), space, H5P_DEFAULT,
                   properties, H5P_DEFAULT));
  TESSERA_CHECK_KIND(ErrorKind::resource, id.valid(), "{}: cannot create dataset '{}': {}",
                     impl_->path.string(), clean, library_message());
  impl_->datasets().emplace(clean, std::move(id));
}

void H5File::append_bytes(std::string_view column, ColumnType type, const void* values,
                          std::uint64_t count) {
  const std::uint64_t old_size = size(column);
  const Session session;
  const hid_t id = impl_->dataset(column);
  const ColumnType have = impl_->info(column).type;
  TESSERA_CHECK(have == type, "append to '{}': expected {}, got {}", column, name(have),
                name(type));
  if (count == 0) {
    return;
  }
  const hsize_t new_size = old_size + count, start = old_size, extent = count;
  bool ok = H5Dset_extent(id, &new_size) >= 0;
  const Id space(H5Dget_space(id)), memory(H5Screate_simple(1, &extent, nullptr));
  ok = ok && H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &extent, nullptr) >= 0 &&
       H5Dwrite(id, hdf5::memory_type(type), memory, space, H5P_DEFAULT, values) >= 0;
  TESSERA_CHECK_KIND(ErrorKind::resource, ok, "{}: cannot write {} rows of '{}': {}",
                     impl_->path.string(), count, column, library_message());
}

}  // namespace tessera
