#include "apps/programs.h"

#include <CLI/CLI.hpp>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "train/file_kind.h"
#include "train/native_file.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

fs::path executable() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error);
}

// A build tree lies two folders below the root of the sources, build/PRESET.
fs::path scripts_beside(const fs::path& folder) {
  return is_plain_file(folder / "CMakeCache.txt") ? folder / "../../apps/python"
                                                  : folder / "../share/tessera/apps/python";
}

void check_exit(int code, const std::vector<std::string>& argv) {
  TESSERA_CHECK_KIND(kind_of_exit(code), code == 0, "{}: stopped; the line above says why",
                     argv.size() > 1 ? argv[1] : argv[0]);
}

/// The exit code of a bounded program. Throws where a signal ended it, or it cannot start.
int bounded(const std::vector<std::string>& argv, const std::string& file,
            const ChildBounds& bounds) {
  const ChildProcess::End end = ChildProcess(argv, bounds).wait();
  TESSERA_CHECK_KIND(ErrorKind::data, end.signal == 0, "{}: its reader was ended by signal {} ({})",
                     file, end.signal, strsignal(end.signal));
  return end.code;
}

// AddressSanitizer and ThreadSanitizer reserve terabytes of address space.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kShadowed = true;
#else
constexpr bool kShadowed = false;
#endif

}  // namespace

void add_helper_options(CLI::App& verb, Helpers& helpers, const std::string& python_help) {
  verb.add_option("--python", helpers.python, python_help);
  verb.add_option("--scripts", helpers.scripts,
                  "Folder of the Python helpers; else the one that came with this program");
}

std::vector<std::string> helper_command(const Helpers& helpers, const std::string& script) {
  const fs::path file = (helpers.scripts.empty() ? scripts_beside(executable().parent_path())
                                                 : fs::absolute(helpers.scripts)) /
                        script;
  TESSERA_CHECK_KIND(ErrorKind::missing, is_plain_file(file),
                     "{}: expected it in {}, got nothing there; --scripts DIR says where it is",
                     script, file.parent_path().lexically_normal().string());
  return {helpers.python, file.lexically_normal().string()};
}

void run_program(const std::vector<std::string>& argv) {
  const ChildProcess::End end = ChildProcess(argv).wait();
  check_exit(end.signal == 0 ? end.code : exit_code(ErrorKind::internal), argv);
}

void run_bounded(const std::vector<std::string>& argv, const std::string& file,
                 const ChildBounds& bounds) {
  check_exit(bounded(argv, file, bounds), argv);
}

std::vector<std::string> event_reader() {
  const fs::path self = executable();
  return self.filename() == "tessera" ? std::vector{self.string(), std::string("read-events")}
                                      : std::vector<std::string>{};
}

void check_foreign_file(const std::string& path) {
  check_plain_file(path);
  if (executable().filename() != "tessera") {
    check_native_file(path);
    return;
  }
  // Columns are read in pieces, and NativeFile refuses a file that expands beyond its size.
  constexpr std::uint64_t kMemory = std::uint64_t{4} << 30U;
  const ChildBounds bounds =
      reader_bounds(path, kShadowed ? ChildBounds::kUnbounded : kMemory + 8 * fs::file_size(path));
  const int code = bounded({executable().string(), "check-native", path}, path, bounds);
  TESSERA_CHECK_KIND(kind_of_exit(code), code == 0, "");
}

}  // namespace tessera::apps
