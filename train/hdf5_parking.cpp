#include "train/hdf5_parking.h"

#include <sys/resource.h>

#include <algorithm>
#include <list>

#include "core/check.h"
#include "train/plain_file.h"

namespace tessera::hdf5 {

namespace {

// The open ones, the last used first.
std::list<ParkedFile*>& open_files() {
  static std::list<ParkedFile*> files;
  return files;
}

bool same(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

std::size_t most_open_files() {
  constexpr rlim_t kLeast = 2, kMost = 64;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return std::clamp(limit.rlim_cur / 4, kLeast, kMost);
}

ParkedFile::~ParkedFile() { close(); }

void ParkedFile::close() {
  datasets.clear();
  id_.reset();
  open_files().remove(this);
}

void ParkedFile::check_same(const struct stat& now) {
  TESSERA_CHECK_KIND(ErrorKind::data, !first_ || same(*first_, now),
                     "{}: was changed while it was in use", path_.string());
  first_ = now;
}

void ParkedFile::open() {
  check_same(PlainFile(path_).status());  // the system's own words, which the library lacks
  while (open_files().size() >= most_open_files()) {
    open_files().back()->close();
  }
  H5PLset_loading_state(0);
  const Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access, false, true);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  id_ = Id(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access));
  TESSERA_CHECK_KIND(ErrorKind::data, id_.valid(), "{}: cannot open as HDF5: {}", path_.string(),
                     library_message());
  open_files().push_front(this);
}

hid_t ParkedFile::id() {
  if (!id_.valid()) {
    open();
  } else if (open_files().front() != this) {
    open_files().remove(this);
    open_files().push_front(this);
  }
  return id_;
}

}  // namespace tessera::hdf5
