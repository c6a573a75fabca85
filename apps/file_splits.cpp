#include "apps/file_splits.h"

#include <fmt/ranges.h>
#include <glob.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <set>
#include <sstream>

#include "core/check.h"
#include "train/file_kind.h"
#include "train/hdf5.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::string> kWords = {{"train", "train"},    {"training", "train"},
                                                   {"val", "val"},        {"valid", "val"},
                                                   {"validation", "val"}, {"test", "test"}};

constexpr const char* kHow = "declare it with --split train=FILE, val=FILE or test=FILE";

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words(1);
  for (const unsigned char c : text) {
    if (std::isalpha(c) != 0) {
      words.back() += static_cast<char>(std::tolower(c));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  return words;
}

std::set<std::string> splits_named_in(const std::string& text) {
  std::set<std::string> splits;
  for (const std::string& word : words_of(text)) {
    if (const auto found = kWords.find(word); found != kWords.end()) {
      splits.insert(found->second);
    }
  }
  return splits;
}

// Returns the split that the root attribute 'split' names; empty if the file has no such attribute.
std::string own_split(const H5File& file) {
  if (!file.has_attribute("split")) {
    return "";
  }
  const auto text = file.read_attribute<std::string>("split");
  const auto found = kWords.find(text);
  TESSERA_CHECK_KIND(ErrorKind::data, found != kWords.end(),
                     "{}: attribute 'split': expected train, val or test, got '{}'",
                     file.path().string(), text);
  return found->second;
}

std::string split_of_chunk(int chunk) { return chunk < 80 ? "train" : chunk < 90 ? "val" : "test"; }

// tessera simulate records "# sample S chunk C: ..." for each source.
std::set<int> chunks_of(const H5File& file) {
  std::set<int> chunks;
  if (!file.has_attribute("source") || !file.has_attribute("settings") ||
      file.read_attribute<std::string>("source") != "tessera simulate") {
    return chunks;
  }
  std::istringstream settings(file.read_attribute<std::string>("settings"));
  for (std::string line; std::getline(settings, line);) {
    int sample = 0, chunk = 0;
    if (std::sscanf(line.c_str(), "# sample %d chunk %d:", &sample, &chunk) == 2) {
      chunks.insert(chunk);
    }
  }
  return chunks;
}

std::set<std::string> splits_of_chunks(const std::set<int>& chunks) {
  std::set<std::string> splits;
  std::ranges::transform(chunks, std::inserter(splits, splits.end()), split_of_chunk);
  return splits;
}

// Throws where the name is that of a native file and the entry is no plain file: leaving it out
// would be a smaller dataset without a word.
bool is_native(const fs::directory_entry& entry) {
  if (entry.path().extension() != ".h5") {
    return false;
  }
  check_plain_file(entry.path());
  return true;
}

std::vector<fs::path> glob_files(const std::string& pattern) {
  glob_t found{};
  std::vector<fs::path> files;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  ::globfree(&found);
  std::erase_if(files, [](const fs::path& path) { return !fs::is_regular_file(path); });
  return files;
}

// A folder's name as it stands, for glob().
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += (std::string_view("*?[\\").find(c) != std::string_view::npos ? "\\" : "") +
           std::string(1, c);
  }
  return out;
}

}  // namespace

FileSplits::FileSplits(const std::string& directory, const std::vector<std::string>& declared)
    : directory_(directory) {
  list();
  for (const std::string& text : declared) {
    declare(text);
  }
  std::ranges::sort(names_);
  TESSERA_CHECK_KIND(ErrorKind::missing, !names_.empty(), "{}: holds no .h5 file", directory_);
}

void FileSplits::list() {
  for (const auto& entry : fs::directory_iterator(directory_)) {
    const std::string name = entry.path().filename().string();
    if (is_native(entry)) {
      names_.push_back(name);
    } else if (entry.is_directory() && !splits_named_in(name).empty()) {
      for (const auto& inner : fs::directory_iterator(entry.path())) {
        if (is_native(inner)) {
          names_.push_back(name + "/" + inner.path().filename().string());
        }
      }
    }
  }
}

// In the folder, else as typed from where the user stands.
std::vector<std::string> FileSplits::matching(const std::string& pattern) const {
  std::vector<fs::path> found = glob_files(escaped(directory_) + "/" + pattern);
  if (found.empty()) {
    found = glob_files(pattern);
  }
  TESSERA_CHECK_KIND(ErrorKind::missing, !found.empty(),
                     "--split: expected a file of {}, got nothing at '{}'", directory_, pattern);
  std::vector<std::string> names;
  for (const fs::path& path : found) {
    const fs::path name = fs::absolute(path).lexically_normal().lexically_relative(
        fs::absolute(directory_ + "/").lexically_normal());
    TESSERA_CHECK(!name.empty() && *name.begin() != "..", "--split: expected a file in {}, got {}",
                  directory_, path.string());
    names.push_back(name.string());
  }
  return names;
}

void FileSplits::declare(const std::string& text) {
  const std::size_t equal = text.find('=');
  const auto split = kWords.find(text.substr(0, equal));
  TESSERA_CHECK(equal != std::string::npos && split != kWords.end() && equal + 1 < text.size(),
                "--split: expected train=FILE, val=FILE or test=FILE, got '{}'", text);
  for (const std::string& name : matching(text.substr(equal + 1))) {
    const auto [known, added] = declared_.emplace(name, split->second);
    TESSERA_CHECK(added || known->second == split->second,
                  "--split: expected one split for {}, got {} and {}", name, known->second,
                  split->second);
    if (std::ranges::find(names_, name) == names_.end()) {
      names_.push_back(name);
    }
  }
}

std::string FileSplits::split_of(const std::string& name,
                                 const std::function<void(const std::string&)>& say) const {
  const H5File file = H5File::open(fs::path(directory_) / name);
  const std::set<int> chunks = chunks_of(file);
  const std::set<std::string> by_chunk = splits_of_chunks(chunks);
  const auto with_chunks = [&](const std::string& split) {
    if (!by_chunk.empty() && by_chunk != std::set{split}) {
      say(fmt::format("{}: in {}, though its chunks {} are for {}", name, split,
                      fmt::join(chunks, ", "), fmt::join(by_chunk, " and ")));
    }
    return split;
  };
  if (const auto found = declared_.find(name); found != declared_.end()) {
    return with_chunks(found->second);
  }
  std::set<std::string> said = splits_named_in(fs::path(name).replace_extension().string());
  if (const std::string own = own_split(file); !own.empty()) {
    said.insert(own);
  }
  const bool unnamed = said.empty();
  if (unnamed) {
    said = by_chunk;
  }
  TESSERA_CHECK_KIND(ErrorKind::data, said.size() < 2, "{}: expected one split, its {} say {}; {}",
                     file.path().string(), unnamed ? "chunks" : "name and attribute 'split'",
                     fmt::join(said, " and "), kHow);
  if (!unnamed) {
    return with_chunks(*said.begin());
  }
  const std::string split = said.empty() ? "train" : *said.begin();
  say(fmt::format("{}: its name tells no split; in {}{}; else {}", name, split,
                  chunks.empty() ? "" : fmt::format(" by its chunks {}", fmt::join(chunks, ", ")),
                  kHow));
  return split;
}

std::map<std::string, std::vector<std::string>> FileSplits::splits(
    const std::function<void(const std::string&)>& say) const {
  std::map<std::string, std::vector<std::string>> splits;
  for (const std::string& name : names_) {
    splits[split_of(name, say)].push_back(name);
  }
  return splits;
}

}  // namespace tessera::apps
