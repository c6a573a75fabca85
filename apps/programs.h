// The Python programs beside the executable.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::apps {

/// apps/python/NAME of the source tree: from the working directory, else beside the build
/// directory. Throws Error(missing).
std::string script(const std::string& name);

/// Runs a program to its end; its output is the user's. Throws Error(missing) if it cannot start,
/// else an Error of the kind that its exit code stands for.
void run_program(const std::vector<std::string>& argv);

/// What a program that reads a stranger's file may use.
struct Bounds {
  std::uint64_t memory = std::uint64_t{4} << 30;  ///< bytes of address space
  std::uint64_t file = std::uint64_t{64} << 30;   ///< bytes of a file that it writes
  std::uint64_t descriptors = 256;
  std::uint64_t cpu_seconds = 24 * 3600;
};

/// run_program() in a child that may not use more, gain privileges or leave a core dump. A crash in
/// somebody else's parser ends the child alone: Error(data), naming `file` and what ended it.
void run_bounded(const std::vector<std::string>& argv, const std::string& file,
                 const Bounds& bounds = {});

/// check_native_file() of somebody's file in a bounded child of this executable, so that a crash of
/// the HDF5 library ends that alone. A program other than `tessera` checks it itself. The child has
/// said what is wrong: the Error thrown then has an empty message.
void check_foreign_file(const std::string& path);

}  // namespace tessera::apps
