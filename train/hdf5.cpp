// Opening and closing files, and finding what lies in them behind hard links.
#include "train/hdf5.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "train/destination.h"
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

bool H5File::Impl::hard_linked(std::string_view column) {
  const hid_t id = file();
  const std::string clean(relative_name(column));
  for (std::size_t end = 0; end != std::string::npos;) {
    end = clean.find('/', end == 0 ? 0 : end + 1);
    const std::string prefix = clean.substr(0, end);
    if (H5Lexists(id, prefix.c_str(), H5P_DEFAULT) <= 0) {
      H5Eclear2(H5E_DEFAULT);
      return false;
    }
    H5L_info_t link;
    if (H5Lget_info(id, prefix.c_str(), &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD) {
      fail(prefix, "expected a hard link, got a soft, external or user-defined link (refused)");
    }
  }
  return true;
}

hid_t H5File::Impl::dataset(std::string_view column) {
  const std::string clean(relative_name(column));
  const hid_t opened = file();
  if (const auto found = datasets().find(clean); found != datasets().end()) {
    return found->second;
  }
  if (clean.empty() || !hard_linked(clean)) {
    fail(clean, "expected a dataset, got none of this name");
  }
  Id id(H5Dopen2(opened, clean.c_str(), H5P_DEFAULT));
  if (!id.valid()) {
    fail(clean, "cannot open: " + library_message());
  }
  return datasets().emplace(clean, std::move(id)).first->second;
}

Id H5File::Impl::object(std::string_view name) {
  const std::string clean(relative_name(name));
  if (clean.empty()) {
    return Id(H5Oopen(file(), "/", H5P_DEFAULT));
  }
  if (!hard_linked(clean)) {
    fail(clean, "expected an object, got none of this name");
  }
  return Id(H5Oopen(file(), clean.c_str(), H5P_DEFAULT));
}

bool NewFile::end() {
  datasets.clear();
  const bool whole = id.valid() && H5Fflush(id, H5F_SCOPE_GLOBAL) >= 0;
  const bool closed = id.close();
  if (!closed) {
    (void)image.release();  // the library still has it, and writes to it when the program ends
  }
  return whole && closed;
}

hid_t H5File::Impl::file() {
  auto* parked = std::get_if<hdf5::ParkedFile>(&state);
  return parked != nullptr ? parked->id() : static_cast<hid_t>(std::get<NewFile>(state).id);
}

hdf5::OpenDatasets& H5File::Impl::datasets() {
  auto* parked = std::get_if<hdf5::ParkedFile>(&state);
  return parked != nullptr ? parked->datasets : std::get<NewFile>(state).datasets;
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

H5File H5File::create(const std::filesystem::path& path, FileIo io) {
  check_file_destination(path);
  const Session session;
  const Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  const Id creation(H5Pcreate(H5P_FILE_CREATE));
  H5Pset_obj_track_times(creation, false);
  auto impl = std::make_unique<Impl>(path, std::move(io));
  auto& made = std::get<NewFile>(impl->state);
  if (write_into(access, *made.image)) {
    made.id = Id(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access));
  }
  TESSERA_CHECK_KIND(ErrorKind::resource, made.id.valid(), "{}: cannot create: {}", path.string(),
                     library_message());
  return H5File(std::move(impl));
}

H5File H5File::open(const std::filesystem::path& path) {
  const Session session;
  auto impl = std::make_unique<Impl>(path);
  (void)impl->file();
  return H5File(std::move(impl));
}

void H5File::close() {
  if (impl_ && !impl_->writable()) {
    const Session session;
    impl_.reset();
  }
  if (!impl_) {
    return;
  }
  const std::unique_ptr<Impl> impl = std::move(impl_);
  auto& made = std::get<NewFile>(impl->state);
  {
    const Session session;
    TESSERA_CHECK_KIND(ErrorKind::resource, made.end(), "{}: cannot close: {}", impl->path.string(),
                       library_message());
  }
  const bool replaces = std::filesystem::exists(impl->path);
  try {
    made.io.replace_text(impl->path, hdf5::content(*made.image));
  } catch (const Error&) {
    std::error_code ignored;
    if (!replaces) {  // it has its name, and perhaps not after a power loss
      std::filesystem::remove(impl->path, ignored);
    }
    throw;
  }
}

const std::filesystem::path& H5File::path() const { return impl_->path; }

bool H5File::has(std::string_view column) const {
  const Session session;
  if (!impl_->hard_linked(column)) {
    return false;
  }
  H5O_info_t info;
  const std::string clean(relative_name(column));
  return H5Oget_info_by_name2(impl_->file(), clean.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) >=
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
  const herr_t rc = H5Lvisit(impl_->file(), H5_INDEX_NAME, H5_ITER_INC, visit, &listing);
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
