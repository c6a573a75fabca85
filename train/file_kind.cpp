#include "train/file_kind.h"

#include <algorithm>
#include <iterator>

#include "core/check.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

const char* name(fs::file_type type) {
  struct Name {
    fs::file_type type;
    const char* text;
  };
  static constexpr Name kNames[] = {{fs::file_type::directory, "a folder"},
                                    {fs::file_type::fifo, "a FIFO"},
                                    {fs::file_type::socket, "a socket"},
                                    {fs::file_type::character, "a device"},
                                    {fs::file_type::block, "a device"}};
  const auto* found = std::ranges::find(kNames, type, &Name::type);
  return found == std::end(kNames) ? "something else" : found->text;
}

}  // namespace

bool is_plain_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

void check_plain_file(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  TESSERA_CHECK_KIND(ErrorKind::missing, type != fs::file_type::not_found,
                     "{}: expected a file, got nothing there", path.string());
  TESSERA_CHECK_KIND(ErrorKind::io, type != fs::file_type::none, "{}: cannot be read: {}",
                     path.string(), error.message());
  TESSERA_CHECK_KIND(ErrorKind::data, type == fs::file_type::regular, "{}: expected a file, got {}",
                     path.string(), name(type));
}

}  // namespace tessera
