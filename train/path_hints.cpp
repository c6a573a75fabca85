#include "train/path_hints.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <system_error>
#include <vector>

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kShown = 4;        // names in a hint
constexpr int kDepth = 4;                // folders below the given one: RUN/finetune/NAME/model
constexpr std::size_t kVisited = 20000;  // entries looked at, since somebody may give /

/// Folders below `top`, sorted, that hold a file of this name; what cannot be read is passed over.
std::vector<std::string> folders_with(const fs::path& top, const char* file) {
  std::vector<std::string> found;
  std::error_code error;
  fs::recursive_directory_iterator it(top, fs::directory_options::skip_permission_denied, error);
  std::size_t visited = 0;
  for (; !error && it != fs::recursive_directory_iterator() && ++visited < kVisited;
       it.increment(error)) {
    if (it.depth() >= kDepth) {
      it.disable_recursion_pending();
    }
    if (it->path().filename() == file) {
      found.push_back(it->path().parent_path().lexically_normal().string());
    }
  }
  std::ranges::sort(found);
  return found;
}

bool holds_data_files(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (it->path().extension() == ".h5") {
      return true;
    }
  }
  return false;
}

std::string listed(const char* what, const std::vector<std::string>& names) {
  if (names.empty()) {
    return "";
  }
  std::string text = fmt::format("; {}: ", what);
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += (i > 0 ? ", " : "") + names[i];
  }
  return names.size() > kShown ? text + fmt::format(" and {} more", names.size() - kShown) : text;
}

// A relative path means something else in every folder.
std::string nothing_there(const fs::path& path) {
  std::error_code error;
  return path.is_absolute()
             ? "nothing there"
             : fmt::format("nothing there, seen from {}", fs::current_path(error).string());
}

fs::path nearest_folder(fs::path path) {
  std::error_code error;
  while (!path.empty() && !fs::is_directory(path, error)) {
    path = path.parent_path();
  }
  return path;
}

std::string manifest_command(const fs::path& folder) {
  return fmt::format("make one with: tessera inspect --write-manifest {}",
                     shell_word(folder.string()));
}

}  // namespace

std::string shell_word(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+=:,@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) {
    return text;
  }
  std::string quoted = "'";
  for (const char c : text) {
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return quoted + "'";
}

std::string model_hint(const fs::path& directory) {
  std::error_code error;
  if (fs::is_directory(directory, error)) {
    const auto models = folders_with(directory, "MANIFEST.json");
    return models.empty() ? "a folder without MANIFEST.json"
                          : "a folder without MANIFEST.json" + listed("models below it", models);
  }
  if (fs::exists(directory, error)) {
    return "a file; a model is a folder that holds MANIFEST.json";
  }
  const fs::path near = nearest_folder(directory.parent_path());
  return nothing_there(directory) + (near.empty() || near == near.root_path()
                                         ? ""
                                         : listed(("models below " + near.string()).c_str(),
                                                  folders_with(near, "MANIFEST.json")));
}

std::string dataset_hint(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory, error)) {
    return nothing_there(directory);
  }
  if (!fs::is_directory(directory, error)) {
    const fs::path folder = directory.has_parent_path() ? directory.parent_path() : fs::path(".");
    return fs::exists(folder / "manifest.json", error)
               ? fmt::format("a file; the dataset is its folder: {}", folder.string())
               : "a file; a dataset is a folder of files with a manifest.json; " +
                     manifest_command(folder);
  }
  if (holds_data_files(directory)) {
    return "nothing there; " + manifest_command(directory);
  }
  return "a folder without manifest.json and without .h5 files" +
         listed("datasets below it", folders_with(directory, "manifest.json"));
}

}  // namespace tessera
