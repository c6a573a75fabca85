// The programs that a verb starts: Python helpers beside the executable, and the bounded reader of
// a stranger's file.
#pragma once

#include <string>
#include <vector>

#include "train/child_process.h"

namespace CLI {
class App;
}

namespace tessera::apps {

/// Where the Python helpers are, and who runs them.
struct Helpers {
  std::string python = "python3";  ///< searched in PATH where it has no slash
  std::string scripts;             ///< folder of the helpers; "" = the one beside the executable
};

/// Adds --python, whose help says what the interpreter must have, and --scripts to a verb.
void add_helper_options(CLI::App& verb, Helpers& helpers, const std::string& python_help);

/// The command line that begins a helper: interpreter and script. The script is looked up in
/// `scripts`, or beside the executable (in the sources of its build tree, or its installed prefix),
/// never in the working directory, which may be a stranger's. Throws Error(missing) naming the
/// folder.
std::vector<std::string> helper_command(const Helpers& helpers, const std::string& script);

/// Runs a program to its end; its output is the user's. Throws Error(missing) if it cannot start,
/// else an Error of the kind that its exit code stands for.
void run_program(const std::vector<std::string>& argv);

/// run_program() within bounds. A crash in somebody else's parser ends the child alone: Error(data)
/// that names `file` and the signal.
void run_bounded(const std::vector<std::string>& argv, const std::string& file,
                 const ChildBounds& bounds);

/// The program that reads HepMC3 files for `simulate` (SimulateConfig::event_reader): this
/// executable. Empty in a program other than `tessera`, which reads them itself.
std::vector<std::string> event_reader();

/// check_native_file() of somebody's file in a bounded child of this executable, so that a crash of
/// the HDF5 library ends that alone. A program other than `tessera` checks it itself. The child has
/// said what is wrong: the Error thrown then has an empty message.
void check_foreign_file(const std::string& path);

}  // namespace tessera::apps
