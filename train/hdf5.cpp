// Opening and closing files, and finding what lies in them behind hard links.
#include "train/hdf5.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "train/hdf5_file.h"

namespace tessera {

using hdf5::Id;
using hdf5::library_message;
using hdf5::Session;

std::string_view relative_name(std::string_view path) {
  while (path.starts_with('/')) {
    path.remove_prefix(1);
  }
  return path;
}

void H5File::Impl::fail(std::string_view column, std::string_view what) const {
  TESSERA_FAIL(ErrorKind::data, "{}: dataset '{}': {}", path.string(), column, what);
}

bool H5File::Impl::hard_linked(std::string_view column) const {
  const std::string clean(relative_name(column));
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

hid_t H5File::Impl::dataset(std::string_view column) {
  const std::string clean(relative_name(column));
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

Id H5File::Impl::object(std::string_view name) const {
  const std::string clean(relative_name(name));
  if (clean.empty()) {
    return Id(H5Oopen(file, "/", H5P_DEFAULT));
  }
  if (!hard_linked(clean)) {
    fail(clean, "expected an object, got none of this name");
  }
  return Id(H5Oopen(file, clean.c_str(), H5P_DEFAULT));
}

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
  const std::string clean(relative_name(column));
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

}  // namespace tessera
