// The Python programs beside the executable.
#pragma once

#include <string>
#include <vector>

namespace tessera::apps {

/// apps/python/NAME of the source tree: from the working directory, else beside the build
/// directory. Throws Error(missing).
std::string script(const std::string& name);

/// Runs a program to its end; its output is the user's. Throws Error(missing) if it cannot start,
/// else an Error of the kind that its exit code stands for.
void run_program(const std::vector<std::string>& argv);

}  // namespace tessera::apps
