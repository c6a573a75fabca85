#include "train/hdf5.h"

#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "core/check.h"

namespace tessera {
namespace {

constexpr ColumnType kTypes[] = {ColumnType::i8,  ColumnType::u8,  ColumnType::i16, ColumnType::u16,
                                 ColumnType::i32, ColumnType::u32, ColumnType::i64, ColumnType::u64,
                                 ColumnType::f32, ColumnType::f64};

// The library has one global lock of its own, if any; ours makes the order of calls and the error
// stack ours.
std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

// Holds the lock and keeps the library from printing its error stack.
class Session {
 public:
  Session() : lock_(library_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

 private:
  std::lock_guard<std::mutex> lock_;
};

herr_t keep_first(unsigned, const H5E_error2_t* error, void* out) {
  auto& text = *static_cast<std::string*>(out);
  if (text.empty() && error->desc != nullptr) {
    text = error->desc;
  }
  return 0;
}

// The innermost message of the library's error stack.
std::string library_message() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "no further detail" : text;
}

// An owned identifier of any HDF5 kind.
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

hid_t memory_type(ColumnType type) {
  const hid_t types[] = {H5T_NATIVE_INT8,  H5T_NATIVE_UINT8,  H5T_NATIVE_INT16, H5T_NATIVE_UINT16,
                         H5T_NATIVE_INT32, H5T_NATIVE_UINT32, H5T_NATIVE_INT64, H5T_NATIVE_UINT64,
                         H5T_NATIVE_FLOAT, H5T_NATIVE_DOUBLE};
  return types[static_cast<std::size_t>(type)];
}

hid_t file_type(ColumnType type) {
  const hid_t types[] = {H5T_STD_I8LE,   H5T_STD_U8LE,  H5T_STD_I16LE, H5T_STD_U16LE,
                         H5T_STD_I32LE,  H5T_STD_U32LE, H5T_STD_I64LE, H5T_STD_U64LE,
                         H5T_IEEE_F32LE, H5T_IEEE_F64LE};
  return types[static_cast<std::size_t>(type)];
}

// The column type of a stored type, if it is a plain number of ours in either byte order.
std::optional<ColumnType> stored_type(hid_t type) {
  const Id native(H5Tget_native_type(type, H5T_DIR_ASCEND));
  if (!native.valid()) {
    return std::nullopt;
  }
  const std::size_t stored_bytes = H5Tget_size(type);
  for (const ColumnType t : kTypes) {
    // The native type widens f16 and odd integers; equal sizes keep those out.
    if (H5Tequal(native, memory_type(t)) > 0 && stored_bytes == width(t)) {
      return t;
    }
  }
  return std::nullopt;
}

std::string_view strip(std::string_view path) {
  while (path.starts_with('/')) {
    path.remove_prefix(1);
  }
  return path;
}

template <class F>
decltype(auto) with_type(ColumnType type, F&& f) {
  switch (type) {
    case ColumnType::i8:
      return f(std::int8_t{});
    case ColumnType::u8:
      return f(std::uint8_t{});
    case ColumnType::i16:
      return f(std::int16_t{});
    case ColumnType::u16:
      return f(std::uint16_t{});
    case ColumnType::i32:
      return f(std::int32_t{});
    case ColumnType::u32:
      return f(std::uint32_t{});
    case ColumnType::i64:
      return f(std::int64_t{});
    case ColumnType::u64:
      return f(std::uint64_t{});
    case ColumnType::f32:
      return f(float{});
    default:
      return f(double{});
  }
}

// Whether every value of From is exactly a value of the float type To.
template <class From, class To>
constexpr bool exact_in_float() {
  return std::numeric_limits<From>::digits <= std::numeric_limits<To>::digits;
}

// Where one conversion rule of the type rule (data.md 1.5) fails: index of the first bad element,
// or count.
template <class From, class To>
std::uint64_t convert(const From* in, To* out, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
      if (!std::in_range<To>(in[i])) {
        return i;
      }
    } else if constexpr (std::is_same_v<From, double> && std::is_same_v<To, float>) {
      if (std::isfinite(in[i]) && std::abs(in[i]) > std::numeric_limits<float>::max()) {
        return i;
      }
    }
    out[i] = static_cast<To>(in[i]);
  }
  return count;
}

template <class From, class To>
constexpr bool convertible() {
  if (std::is_floating_point_v<From>) {
    return std::is_floating_point_v<To>;
  }
  return std::is_integral_v<To> || exact_in_float<From, To>();
}

}  // namespace

const char* name(ColumnType type) {
  const char* names[] = {"i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"};
  return names[static_cast<std::size_t>(type)];
}

std::size_t width(ColumnType type) {
  const std::size_t widths[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
  return widths[static_cast<std::size_t>(type)];
}

struct H5File::Impl {
  std::filesystem::path path;
  Id file;
  bool writable = false;
  // Open datasets, so that each keeps its chunk cache between reads.
  std::map<std::string, Id, std::less<>> open_datasets;

  [[noreturn]] void fail(std::string_view column, std::string_view what) const {
    TESSERA_FAIL(ErrorKind::data, "{}: dataset '{}': {}", path.string(), column, what);
  }

  // Walks a path link by link, since H5Dopen would follow soft and external links.
  bool hard_linked(std::string_view column) const {
    const std::string clean(strip(column));
    for (std::size_t end = 0; end != std::string::npos;) {
      end = clean.find('/', end == 0 ? 0 : end + 1);
      const std::string prefix = clean.substr(0, end);
      if (H5Lexists(file, prefix.c_str(), H5P_DEFAULT) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        return false;
      }
      H5L_info_t link;
      if (H5Lget_info(file, prefix.c_str(), &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD) {
        fail(prefix, "expected a hard link, got a soft, external or user-defined link (refused)");
      }
    }
    return true;
  }

  hid_t dataset(std::string_view column) {
    const std::string clean(strip(column));
    if (const auto found = open_datasets.find(clean); found != open_datasets.end()) {
      return found->second;
    }
    if (clean.empty() || !hard_linked(clean)) {
      fail(clean, "expected a dataset, got none of this name");
    }
    Id id(H5Dopen2(file, clean.c_str(), H5P_DEFAULT));
    if (!id.valid()) {
      fail(clean, "cannot open: " + library_message());
    }
    return open_datasets.emplace(clean, std::move(id)).first->second;
  }

  // Refuses layouts that reach outside the file and filters outside the allow-list; true if
  // fletcher32 is on.
  bool check_storage(std::string_view column, hid_t id) const {
    const Id plist(H5Dget_create_plist(id));
    if (!plist.valid()) {
      fail(column, "cannot read its properties: " + library_message());
    }
    if (H5Pget_layout(plist) == H5D_VIRTUAL || H5Pget_external_count(plist) != 0) {
      fail(column, "expected data in this file, got a virtual or external dataset (refused)");
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
        fail(column, fmt::format("filter {} '{}' is not one of deflate, shuffle, fletcher32, szip; "
                                 "rewrite the file with h5repack or convert it",
                                 filter, filter_name));
      }
    }
    return checksummed;
  }

  ColumnInfo info(std::string_view column) {
    const hid_t id = dataset(column);
    ColumnInfo result;
    result.checksummed = check_storage(column, id);
    const Id type(H5Dget_type(id));
    const auto stored = stored_type(type);
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
    if (!writable) {
      check_filled(column, id, result);
    }
    return result;
  }

  // Deflate cannot shrink below 1/1032, so a larger extent is a lie or unwritten: refused before
  // any allocation.
  void check_filled(std::string_view column, hid_t id, const ColumnInfo& info) const {
    const auto stored = static_cast<long double>(H5Dget_storage_size(id));
    long double bytes = static_cast<long double>(width(info.type));
    for (const std::uint64_t n : info.shape) {
      bytes *= static_cast<long double>(n);
    }
    if (bytes > 1100.0L * stored) {
      fail(column, fmt::format("extent asks for {:.0f} bytes, the file stores {:.0f} of it", bytes,
                               stored));
    }
  }

  std::uint64_t size(std::string_view column) {
    const ColumnInfo i = info(column);
    if (i.shape.size() != 1) {
      fail(column, fmt::format("expected rank 1, got rank {}", i.shape.size()));
    }
    return i.shape[0];
  }

  void read_stored(std::string_view column, ColumnType type, std::uint64_t begin,
                   std::uint64_t count, void* out) {
    if (count == 0) {
      return;
    }
    const hid_t id = dataset(column);
    const Id space(H5Dget_space(id));
    const hsize_t start = begin, extent = count;
    const Id memory(H5Screate_simple(1, &extent, nullptr));
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &extent, nullptr) < 0 ||
        H5Dread(id, memory_type(type), memory, space, H5P_DEFAULT, out) < 0) {
      fail(column, fmt::format("rows {} to {} cannot be read (damaged?): {}", begin, begin + count,
                               library_message()));
    }
  }

  // The identifier of a group or dataset that carries attributes.
  Id object(std::string_view name) const {
    const std::string clean(strip(name));
    if (clean.empty()) {
      return Id(H5Oopen(file, "/", H5P_DEFAULT));
    }
    if (!hard_linked(clean)) {
      fail(clean, "expected an object, got none of this name");
    }
    return Id(H5Oopen(file, clean.c_str(), H5P_DEFAULT));
  }

  [[noreturn]] void fail_attribute(std::string_view attribute, std::string_view what) const {
    TESSERA_FAIL(ErrorKind::data, "{}: attribute '{}': {}", path.string(), attribute, what);
  }

  Id attribute(std::string_view attribute_name, std::string_view object_name) const {
    const Id owner = object(object_name);
    const std::string text(attribute_name);
    if (!owner.valid() || H5Aexists(owner, text.c_str()) <= 0) {
      fail_attribute(attribute_name, "expected it to exist, got nothing");
    }
    Id id(H5Aopen(owner, text.c_str(), H5P_DEFAULT));
    if (!id.valid()) {
      fail_attribute(attribute_name, "cannot open: " + library_message());
    }
    return id;
  }

  void write_attribute(std::string_view attribute_name, std::string_view object_name, hid_t type,
                       hid_t memory, hid_t space, const void* value) const {
    const Id owner = object(object_name);
    const std::string text(attribute_name);
    if (H5Aexists(owner, text.c_str()) > 0) {
      H5Adelete(owner, text.c_str());
    }
    const Id id(H5Acreate2(owner, text.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT));
    if (!id.valid() || H5Awrite(id, memory, value) < 0) {
      TESSERA_FAIL(ErrorKind::io, "{}: cannot write attribute '{}': {}", path.string(),
                   attribute_name, library_message());
    }
  }

  // Groups are made one by one, since intermediate groups made by the library would carry time
  // stamps.
  void make_groups(const std::string& column) const {
    const Id properties(H5Pcreate(H5P_GROUP_CREATE));
    H5Pset_obj_track_times(properties, false);
    for (std::size_t end = column.find('/'); end != std::string::npos;
         end = column.find('/', end + 1)) {
      const std::string group = column.substr(0, end);
      if (H5Lexists(file, group.c_str(), H5P_DEFAULT) <= 0) {
        const Id id(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT));
        if (!id.valid()) {
          TESSERA_FAIL(ErrorKind::io, "{}: cannot create group '{}': {}", path.string(), group,
                       library_message());
        }
      }
    }
  }
};

H5File::H5File(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
H5File::H5File(H5File&&) noexcept = default;

H5File& H5File::operator=(H5File&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}

H5File::~H5File() {
  if (impl_) {
    const Session session;
    impl_.reset();
  }
}

H5File H5File::create(const std::filesystem::path& path) {
  const Session session;
  const Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  const Id creation(H5Pcreate(H5P_FILE_CREATE));
  H5Pset_obj_track_times(creation, false);
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->writable = true;
  impl->file = Id(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access));
  TESSERA_CHECK_KIND(ErrorKind::io, impl->file.valid(), "{}: cannot create: {}", path.string(),
                     library_message());
  return H5File(std::move(impl));
}

H5File H5File::open(const std::filesystem::path& path) {
  TESSERA_CHECK_KIND(ErrorKind::missing, std::filesystem::exists(path),
                     "{}: expected a data file, got nothing there", path.string());
  const Session session;
  H5PLset_loading_state(0);
  const Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access, false, true);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->file = Id(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access));
  TESSERA_CHECK_KIND(ErrorKind::data, impl->file.valid(), "{}: cannot open as HDF5: {}",
                     path.string(), library_message());
  return H5File(std::move(impl));
}

void H5File::close() {
  if (!impl_) {
    return;
  }
  const Session session;
  impl_->open_datasets.clear();
  const bool flushed = !impl_->writable || H5Fflush(impl_->file, H5F_SCOPE_GLOBAL) >= 0;
  const std::string reason = flushed ? "" : library_message();
  const std::string where = impl_->path.string();
  impl_.reset();
  TESSERA_CHECK_KIND(ErrorKind::io, flushed, "{}: cannot flush: {}", where, reason);
}

const std::filesystem::path& H5File::path() const { return impl_->path; }

bool H5File::has(std::string_view column) const {
  const Session session;
  if (!impl_->hard_linked(column)) {
    return false;
  }
  H5O_info_t info;
  const std::string clean(strip(column));
  return H5Oget_info_by_name2(impl_->file, clean.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) >=
             0 &&
         info.type == H5O_TYPE_DATASET;
}

namespace {

struct Listing {
  std::vector<std::string> datasets;
  std::string bad_link;
};

herr_t visit(hid_t group, const char* name, const H5L_info_t* link, void* out) {
  auto& listing = *static_cast<Listing*>(out);
  if (link->type != H5L_TYPE_HARD) {
    listing.bad_link = name;
    return -1;
  }
  H5O_info_t info;
  if (H5Oget_info_by_name2(group, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) {
    return -1;
  }
  if (info.type == H5O_TYPE_DATASET) {
    listing.datasets.emplace_back(name);
  }
  return 0;
}

herr_t visit_attribute(hid_t, const char* name, const H5A_info_t*, void* out) {
  static_cast<std::vector<std::string>*>(out)->emplace_back(name);
  return 0;
}

}  // namespace

std::vector<std::string> H5File::columns() const {
  const Session session;
  Listing listing;
  const herr_t rc = H5Lvisit(impl_->file, H5_INDEX_NAME, H5_ITER_INC, visit, &listing);
  TESSERA_CHECK_KIND(ErrorKind::data, listing.bad_link.empty(),
                     "{}: '{}': expected a hard link, got a soft, external or user-defined link "
                     "(refused)",
                     impl_->path.string(), listing.bad_link);
  TESSERA_CHECK_KIND(ErrorKind::data, rc >= 0, "{}: cannot list: {}", impl_->path.string(),
                     library_message());
  std::sort(listing.datasets.begin(), listing.datasets.end());
  return listing.datasets;
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
  with_type(have, [&]<class From>(From) {
    with_type(want, [&]<class To>(To) {
      if constexpr (!convertible<From, To>()) {
        impl_->fail(column, fmt::format("expected {} or a type that it holds exactly, got {}",
                                        name(want), name(have)));
      } else {
        const auto* from = reinterpret_cast<const From*>(stored.data());
        const std::uint64_t bad = convert(from, static_cast<To*>(out), count);
        if (bad != count) {
          impl_->fail(column, fmt::format("row {}: expected a value within {}, got {}", begin + bad,
                                          name(want), from[bad]));
        }
      }
    });
  });
}

std::vector<std::byte> H5File::read_raw(std::string_view column) const {
  const std::uint64_t count = size(column);
  const Session session;
  const ColumnType type = impl_->info(column).type;
  std::vector<std::byte> bytes(count * width(type));
  impl_->read_stored(column, type, 0, count, bytes.data());
  return bytes;
}

void H5File::create_dataset(std::string_view column, ColumnType type,
                            const ColumnOptions& options) {
  TESSERA_CHECK(impl_->writable, "{}: is open for reading, cannot create '{}'",
                impl_->path.string(), column);
  TESSERA_CHECK(options.chunk > 0 && options.deflate >= 0 && options.deflate <= 9,
                "write_column '{}': chunk must be positive and deflate 0 to 9, got {} and {}",
                column, options.chunk, options.deflate);
  const Session session;
  const std::string clean(strip(column));
  impl_->make_groups(clean);
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
  Id id(H5Dcreate2(impl_->file, clean.c_str(), file_type(type), space, H5P_DEFAULT, properties,
                   H5P_DEFAULT));
  TESSERA_CHECK_KIND(ErrorKind::io, id.valid(), "{}: cannot create dataset '{}': {}",
                     impl_->path.string(), clean, library_message());
  impl_->open_datasets.emplace(clean, std::move(id));
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
       H5Dwrite(id, memory_type(type), memory, space, H5P_DEFAULT, values) >= 0;
  TESSERA_CHECK_KIND(ErrorKind::io, ok, "{}: cannot write {} rows of '{}': {}",
                     impl_->path.string(), count, column, library_message());
}

namespace {

Id fixed_string(std::size_t bytes) {
  Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type, bytes);
  H5Tset_strpad(type, H5T_STR_NULLTERM);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

}  // namespace

void H5File::write_attribute(std::string_view attribute, std::string_view value,
                             std::string_view object) {
  const Session session;
  const std::string text(value);
  const Id type = fixed_string(text.size() + 1), space(H5Screate(H5S_SCALAR));
  impl_->write_attribute(attribute, object, type, type, space, text.c_str());
}

void H5File::write_attribute(std::string_view attribute, double value, std::string_view object) {
  const Session session;
  const Id space(H5Screate(H5S_SCALAR));
  impl_->write_attribute(attribute, object, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, space, &value);
}

void H5File::write_attribute(std::string_view attribute, std::uint32_t value,
                             std::string_view object) {
  const Session session;
  const Id space(H5Screate(H5S_SCALAR));
  impl_->write_attribute(attribute, object, H5T_STD_U32LE, H5T_NATIVE_UINT32, space, &value);
}

void H5File::write_attribute(std::string_view attribute, std::int64_t value,
                             std::string_view object) {
  const Session session;
  const Id space(H5Screate(H5S_SCALAR));
  impl_->write_attribute(attribute, object, H5T_STD_I64LE, H5T_NATIVE_INT64, space, &value);
}

void H5File::write_attribute(std::string_view attribute, const std::vector<std::string>& values,
                             std::string_view object) {
  const Session session;
  std::size_t bytes = 1;
  for (const std::string& value : values) {
    bytes = std::max(bytes, value.size() + 1);
  }
  std::vector<char> packed(bytes * values.size() + 1, '\0');
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::memcpy(packed.data() + i * bytes, values[i].data(), values[i].size());
  }
  const hsize_t count = values.size();
  const Id type = fixed_string(bytes), space(H5Screate_simple(1, &count, nullptr));
  impl_->write_attribute(attribute, object, type, type, space, packed.data());
}

bool H5File::has_attribute(std::string_view attribute, std::string_view object) const {
  const Session session;
  const Id owner = impl_->object(object);
  return owner.valid() && H5Aexists(owner, std::string(attribute).c_str()) > 0;
}

std::vector<std::string> H5File::attributes(std::string_view object) const {
  const Session session;
  const Id owner = impl_->object(object);
  std::vector<std::string> names;
  H5Aiterate2(owner, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit_attribute, &names);
  return names;
}

template <>
std::vector<std::string> H5File::read_attribute(std::string_view attribute,
                                                std::string_view object) const {
  const Session session;
  const Id id = impl_->attribute(attribute, object);
  const Id type(H5Aget_type(id)), space(H5Aget_space(id));
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  if (H5Tget_class(type) != H5T_STRING || count < 0 || count > 65536) {
    impl_->fail_attribute(attribute, "expected a string or a list of strings, got another type");
  }
  std::vector<std::string> result;
  if (H5Tis_variable_str(type) > 0) {
    std::vector<char*> texts(static_cast<std::size_t>(count), nullptr);
    if (H5Aread(id, type, texts.data()) < 0) {
      impl_->fail_attribute(attribute, "cannot read: " + library_message());
    }
    for (const char* text : texts) {
      result.emplace_back(text == nullptr ? "" : text);
    }
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, texts.data());
    return result;
  }
  const std::size_t bytes = H5Tget_size(type);
  std::vector<char> packed(bytes * static_cast<std::size_t>(count) + 1, '\0');
  if (H5Aread(id, type, packed.data()) < 0) {
    impl_->fail_attribute(attribute, "cannot read: " + library_message());
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const char* text = packed.data() + i * bytes;
    result.emplace_back(text, strnlen(text, bytes));
  }
  return result;
}

template <>
std::string H5File::read_attribute(std::string_view attribute, std::string_view object) const {
  const auto values = read_attribute<std::vector<std::string>>(attribute, object);
  if (values.size() != 1) {
    impl_->fail_attribute(attribute,
                          fmt::format("expected one string, got a list of {}", values.size()));
  }
  return values[0];
}

template <>
double H5File::read_attribute(std::string_view attribute, std::string_view object) const {
  const Session session;
  const Id id = impl_->attribute(attribute, object);
  const Id type(H5Aget_type(id)), space(H5Aget_space(id));
  double value = 0;
  const H5T_class_t kind = H5Tget_class(type);
  if ((kind != H5T_FLOAT && kind != H5T_INTEGER) || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(id, H5T_NATIVE_DOUBLE, &value) < 0) {
    impl_->fail_attribute(attribute, "expected one number, got another type or extent");
  }
  return value;
}

template <>
std::int64_t H5File::read_attribute(std::string_view attribute, std::string_view object) const {
  const Session session;
  const Id id = impl_->attribute(attribute, object);
  const Id type(H5Aget_type(id)), space(H5Aget_space(id));
  std::int64_t value = 0;
  if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(id, H5T_NATIVE_INT64, &value) < 0) {
    impl_->fail_attribute(attribute, "expected one integer, got another type or extent");
  }
  return value;
}

}  // namespace tessera
