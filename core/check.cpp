#include "core/check.h"

namespace tessera {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage:
      return 64;
    case ErrorKind::data:
      return 65;
    case ErrorKind::missing:
      return 66;
    case ErrorKind::numeric:
      return 70;
    case ErrorKind::internal:
      return 70;
    case ErrorKind::resource:
      return 71;
    case ErrorKind::io:
      return 74;
    case ErrorKind::requeue:
      return 75;
    case ErrorKind::peer:
      return 76;
  }
  return 70;
}

const char* name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage:
      return "usage";
    case ErrorKind::data:
      return "data";
    case ErrorKind::missing:
      return "missing";
    case ErrorKind::numeric:
      return "numeric";
    case ErrorKind::internal:
      return "internal";
    case ErrorKind::resource:
      return "resource";
    case ErrorKind::io:
      return "io";
    case ErrorKind::requeue:
      return "requeue";
    case ErrorKind::peer:
      return "peer";
  }
  return "internal";
}

Error::Error(ErrorKind kind, std::string message, std::source_location where)
    : std::runtime_error(fmt::format("{} [at {}:{}]", message, where.file_name(), where.line())),
      kind_(kind),
      message_(std::move(message)),
      where_(where) {}

namespace detail {
void throw_error(ErrorKind kind, std::string message, std::source_location where) {
  throw Error(kind, std::move(message), where);
}
}  // namespace detail

}  // namespace tessera
