// Error, the one exception type of the library, and TESSERA_CHECK, which throws it.
// Host code only: fmt must not reach a device unit (Debian's fmt 9.1 does not compile under nvcc
// 13).
#pragma once

#if defined(__CUDACC__) || defined(TESSERA_DEVICE_TU)
#error "core/check.h is host code; device units include core/view.h and core/gpu only"
#endif

#include <fmt/format.h>

#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>

namespace tessera {

/// What went wrong, by who can mend it; `exit_code` maps each kind to the code documented for the
/// apps.
enum class ErrorKind : std::uint8_t {
  usage,     ///< flag, configuration, shape: 64
  data,      ///< content of a file: 65
  missing,   ///< an input is not there: 66
  numeric,   ///< non-finite value: 70
  internal,  ///< our own fault: 70
  resource,  ///< memory, device: 71
  io,        ///< disk full, permission: 74
  requeue,   ///< stopped by a signal, checkpoint written: 75
  peer,      ///< a rank was lost: 76
};

/// The process exit code of a kind (sysexits.h numbers).
int exit_code(ErrorKind kind);

/// One word for a kind: "usage", "data", ...
const char* name(ErrorKind kind);

/// The only exception thrown on purpose. what() reads "<operation>: <expected>, <got> [at
/// file:line]"; message() is the same without the place, for people.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string message,
        std::source_location where = std::source_location::current());
  [[nodiscard]] ErrorKind kind() const { return kind_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  [[nodiscard]] const std::source_location& where() const { return where_; }

 private:
  ErrorKind kind_;
  std::string message_;
  std::source_location where_;
};

namespace detail {
[[noreturn]] void throw_error(ErrorKind kind, std::string message, std::source_location where);
}  // namespace detail

}  // namespace tessera

/// Throws Error{kind} with a message formatted by fmt; the format is checked at compile time.
#define TESSERA_FAIL(kind, ...)                                      \
  ::tessera::detail::throw_error((kind), ::fmt::format(__VA_ARGS__), \
                                 ::std::source_location::current())

/// Throws Error{kind} unless `condition` holds.
#define TESSERA_CHECK_KIND(kind, condition, ...) \
  do {                                           \
    if (!(condition)) [[unlikely]] {             \
      TESSERA_FAIL(kind, __VA_ARGS__);           \
    }                                            \
  } while (false)

/// Throws Error{usage} unless `condition` holds: TESSERA_CHECK(x.rank() == 2, "softmax: x must be
/// (rows, cols), got {}", x.shape())
#define TESSERA_CHECK(condition, ...) \
  TESSERA_CHECK_KIND(::tessera::ErrorKind::usage, condition, __VA_ARGS__)
