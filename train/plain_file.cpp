#include "train/plain_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace tessera {
namespace {

ErrorKind kind_of(int code) {
  switch (code) {
    case ENOENT:
    case ENOTDIR:
      return ErrorKind::missing;
    case ENXIO:  // a socket
      return ErrorKind::data;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return ErrorKind::resource;
    default:
      return ErrorKind::io;
  }
}

}  // namespace

PlainFile::PlainFile(std::filesystem::path path)
    : path_(std::move(path)),
      descriptor_(::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  const int code = errno;
  TESSERA_CHECK_KIND(kind_of(code), descriptor_ >= 0, "{}: cannot open: {} (errno {})",
                     path_.string(), std::strerror(code), code);
  if (::fstat(descriptor_, &status_) != 0 || !S_ISREG(status_.st_mode)) {
    ::close(descriptor_);
    TESSERA_FAIL(ErrorKind::data, "{}: expected a plain file, got a folder, device, pipe or socket",
                 path_.string());
  }
}

PlainFile::~PlainFile() { ::close(descriptor_); }

std::size_t PlainFile::read(std::span<std::byte> out) {
  for (;;) {
    const ssize_t got = ::read(descriptor_, out.data(), out.size());
    if (got >= 0) {
      return static_cast<std::size_t>(got);
    }
    const int code = errno;
    TESSERA_CHECK_KIND(ErrorKind::io, code == EINTR, "{}: cannot read: {} (errno {})",
                       path_.string(), std::strerror(code), code);
  }
}

}  // namespace tessera
