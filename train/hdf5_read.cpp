// Reading columns: layout, filters, type and extent are checked before anything is allocated.
#include <algorithm>

#include "core/check.h"
#include "train/hdf5_file.h"

namespace tessera {

using hdf5::Id;
using hdf5::library_message;
using hdf5::memory_type;
using hdf5::Session;

// Two checks of info().
namespace {

// Refuses layouts that reach outside the file and filters outside the allow-list; true if
// fletcher32 is on.
bool check_storage(const H5File::Impl& f, std::string_view column, hid_t id) {
  const Id plist(H5Dget_create_plist(id));
  if (!plist.valid()) {
    f.fail(column, "cannot read its properties: " + library_message());
  }
  if (H5Pget_layout(plist) == H5D_VIRTUAL || H5Pget_external_count(plist) != 0) {
    f.fail(column, "expected data in this file, got a virtual or external dataset (refused)");
  }
  bool checksummed = false;
  for (int i = 0, n = H5Pget_nfilters(plist); i < n; ++i) {
    std::size_t values = 0;
    unsigned flags = 0, config = 0;
    char filter_name[64] = "";
    const H5Z_filter_t filter = H5Pget_filter2(plist, static_cast<unsigned>(i), &flags, &values,
                                               nullptr, sizeof filter_name, filter_name, &config);
    checksummed = checksummed || filter == H5Z_FILTER_FLETCHER32;
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE &&
        filter != H5Z_FILTER_FLETCHER32 && filter != H5Z_FILTER_SZIP) {
      f.fail(column, fmt::format("filter {} '{}' is not one of deflate, shuffle, fletcher32, szip; "
                                 "rewrite the file with h5repack or convert it",
                                 filter, filter_name));
    }
  }
  return checksummed;
}

// Deflate cannot shrink below 1/1032, so a larger extent is a lie or unwritten: refused before
// any allocation.
void check_filled(const H5File::Impl& f, std::string_view column, hid_t id,
                  const ColumnInfo& info) {
  const auto stored = static_cast<long double>(H5Dget_storage_size(id));
  long double bytes = static_cast<long double>(width(info.type));
  for (const std::uint64_t n : info.shape) {
    bytes *= static_cast<long double>(n);
  }
  if (bytes > 1100.0L * stored) {
    f.fail(column, fmt::format("extent asks for {:.0f} bytes, expected them stored, got {:.0f}",
                               bytes, stored));
  }
}

}  // namespace

namespace {

// Elements of a chunk of a chunked dataset, else 0.
std::uint64_t chunk_of(hid_t id, int rank) {
  const Id plist(H5Dget_create_plist(id));
  std::vector<hsize_t> extents(static_cast<std::size_t>(std::max(rank, 1)), 1);
  if (H5Pget_layout(plist) != H5D_CHUNKED || H5Pget_chunk(plist, rank, extents.data()) != rank) {
    return 0;
  }
  std::uint64_t elements = 1;
  for (const hsize_t n : extents) {
    if (__builtin_mul_overflow(elements, n, &elements)) {
      return UINT64_MAX;
    }
  }
  return elements;
}

}  // namespace

ColumnInfo H5File::Impl::info(std::string_view column) {
  const hid_t id = dataset(column);
  ColumnInfo result;
  result.checksummed = check_storage(*this, column, id);
  const Id type(H5Dget_type(id));
  const auto stored = hdf5::stored_type(type);
  if (!stored) {
    fail(column, "expected integers of 8 to 64 bits, f32 or f64, got another type");
  }
  result.type = *stored;
  const Id space(H5Dget_space(id));
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0) {
    fail(column, "cannot read its extent: " + library_message());
  }
  result.shape.resize(static_cast<std::size_t>(rank));
  std::vector<hsize_t> dims(result.shape.size());
  H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  std::copy(dims.begin(), dims.end(), result.shape.begin());
  result.chunk = chunk_of(id, rank);
  if (!writable()) {
    check_filled(*this, column, id, result);
  }
  return result;
}

std::uint64_t H5File::Impl::size(std::string_view column) {
  const ColumnInfo i = info(column);
  if (i.shape.size() != 1) {
    fail(column, fmt::format("expected rank 1, got rank {}", i.shape.size()));
  }
  return i.shape[0];
}

namespace {

bool read_rows(hid_t id, ColumnType type, std::uint64_t begin, std::uint64_t count, void* out) {
  const Id space(H5Dget_space(id));
  const hsize_t start = begin, extent = count;
  const Id memory(H5Screate_simple(1, &extent, nullptr));
  return H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &extent, nullptr) >= 0 &&
         H5Dread(id, memory_type(type), memory, space, H5P_DEFAULT, out) >= 0;
}

struct RowRange {
  std::uint64_t begin, end;
};

// The first chunk of some rows that cannot be read, for the message: what to make again.
RowRange unreadable_chunk(hid_t id, ColumnType type, RowRange rows) {
  const Id plist(H5Dget_create_plist(id));
  std::uint64_t chunk = rows.end - rows.begin;
  if (hsize_t extent = 0; H5Pget_layout(plist) == H5D_CHUNKED) {
    H5Pget_chunk(plist, 1, &extent);
    chunk = extent;
  }
  std::vector<std::byte> scratch(std::min(chunk, rows.end - rows.begin) * width(type));
  for (std::uint64_t begin = rows.begin; begin < rows.end;) {
    const std::uint64_t end = std::min(rows.end, (begin / chunk + 1) * chunk);
    if (!read_rows(id, type, begin, end - begin, scratch.data())) {
      return {begin, end};
    }
    begin = end;
  }
  return rows;
}

}  // namespace

void H5File::Impl::read_stored(std::string_view column, ColumnType type, std::uint64_t begin,
                               std::uint64_t count, void* out) {
  if (count == 0) {
    return;
  }
  const hid_t id = dataset(column);
  if (!read_rows(id, type, begin, count, out)) {
    const std::string reason = library_message();
    const RowRange bad = unreadable_chunk(id, type, {begin, begin + count});
    H5Eclear2(H5E_DEFAULT);
    fail(column, fmt::format("rows {} to {}: expected an undamaged chunk, got: {}", bad.begin,
                             bad.end, reason));
  }
}

bool H5File::is_column(std::string_view dataset) const {
  const Session session;
  const hid_t id = impl_->dataset(dataset);
  const Id type(H5Dget_type(id)), space(H5Dget_space(id));
  return hdf5::stored_type(type).has_value() && H5Sget_simple_extent_ndims(space) == 1;
}

ColumnInfo H5File::info(std::string_view column) const {
  const Session session;
  return impl_->info(column);
}

std::uint64_t H5File::size(std::string_view column) const {
  const Session session;
  return impl_->size(column);
}

void H5File::check_range(std::string_view column, std::uint64_t begin, std::uint64_t count) const {
  const std::uint64_t extent = size(column);
  TESSERA_CHECK_KIND(ErrorKind::data, begin <= extent && count <= extent - begin,
                     "{}: dataset '{}': expected rows {} to {}, got an extent of {}",
                     impl_->path.string(), column, begin, begin + count, extent);
}

void H5File::read_bytes(std::string_view column, std::uint64_t begin, std::uint64_t count,
                        ColumnType want, void* out) const {
  check_range(column, begin, count);
  const Session session;
  const ColumnType have = impl_->info(column).type;
  if (have == want) {
    impl_->read_stored(column, want, begin, count, out);
    return;
  }
  std::vector<std::byte> stored(count * width(have));
  impl_->read_stored(column, have, begin, count, stored.data());
  if (!convertible(have, want)) {
    impl_->fail(column, fmt::format("expected {} or a type that it holds exactly, got {}",
                                    name(want), name(have)));
  }
  if (const auto bad = convert_values(have, stored.data(), want, out, count)) {
    TESSERA_FAIL(ErrorKind::data, "{}: dataset '{}', row {}: expected a value within {}, got {}",
                 impl_->path.string(), column, begin + bad->index, name(want), bad->value);
  }
}

std::vector<std::byte> H5File::read_raw(std::string_view column, std::uint64_t begin,
                                        std::uint64_t count) const {
  check_range(column, begin, count);
  const Session session;
  const ColumnType type = impl_->info(column).type;
  std::vector<std::byte> bytes(count * width(type));
  impl_->read_stored(column, type, begin, count, bytes.data());
  return bytes;
}

}  // namespace tessera
