// Other programs, started and bounded: the Python helpers, the event generator, the reader of a
// stranger's file. The one place that forks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/check.h"

namespace tessera {

/// The most that a child may use; the operating system enforces it. A bound of kUnbounded is not
/// set.
struct ChildBounds {
  static constexpr std::uint64_t kUnbounded = ~std::uint64_t{0};
  std::uint64_t memory = kUnbounded;        ///< bytes of address space
  std::uint64_t file = kUnbounded;          ///< bytes of a file that it writes
  std::uint64_t descriptors = kUnbounded;   ///< open files
  std::uint64_t cpu_seconds = kUnbounded;   ///< processor time; then SIGXCPU ends it
  std::uint64_t wall_seconds = kUnbounded;  ///< time on the clock; then SIGALRM ends it
  bool new_privileges = true;               ///< whether set-user-id programs have their effect
};

/// ChildBounds of a program that reads the file `path`, which a stranger may have made: 64 GiB of
/// output, no core dump, no privileges, and time in proportion to the size of the file (ten
/// minutes and twenty seconds a megabyte), so that no reader hangs for ever.
ChildBounds reader_bounds(const std::filesystem::path& path, std::uint64_t memory);

/// The kind of error that an exit code of one of our programs stands for; internal for any other.
ErrorKind kind_of_exit(int code);

/// A running program. It is killed when this object is destroyed, and by the operating system when
/// the thread that started it ends for whatever reason, kill -9 included.
class ChildProcess {
 public:
  /// How it ended: its exit code, or the signal that ended it (else 0).
  struct End {
    int code = 0, signal = 0;
  };
  /// argv[0] is searched in PATH. The child's standard output is the descriptor
  /// `standard_output`, or this program's where that is negative. Throws Error(missing) if the
  /// program cannot start, Error(resource) if no process can be made.
  explicit ChildProcess(const std::vector<std::string>& argv, const ChildBounds& bounds = {},
                        int standard_output = -1);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  /// Waits for its end.
  End wait();

 private:
  pid_t id_ = -1;
};

}  // namespace tessera
