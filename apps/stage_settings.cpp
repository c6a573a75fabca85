#include "apps/stage_settings.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>

#include "apps/output.h"
#include "apps/run_record.h"
#include "apps/stage_record.h"
#include "apps/stages.h"
#include "train/checkpoint.h"
#include "train/hash.h"
#include "train/manifest.h"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

struct DataKey {
  const char* key;
  const std::string& directory;
  bool used;
};

std::vector<DataKey> data_keys(const RunConfig& c, DataUse use = {}) {
  return {{"data.jets", c.data.jets, use.jets}, {"data.taus", c.data.taus, use.taus}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
  }
  return lines;
}

std::string text_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) {
    text += line + "\n";
  }
  return text;
}

// The line that begins so; empty if there is none.
std::string line_with(const std::string& text, const std::string& begin) {
  for (const std::string& line : lines_of(text)) {
    if (line.starts_with(begin)) {
      return line;
    }
  }
  return "";
}

// The value of a line `data.jets = "PATH"`.
std::string path_in(const std::string& key, const std::string& line) {
  RunConfig c;
  run_schema().read_text("[data]\n" + line.substr(std::string("data.").size()), "settings.txt", c);
  return key == "data.jets" ? c.data.jets : c.data.taus;
}

// Whether a dataset is what an older version of the program saw at `path`: by the hash in run.json;
// a run that has none yet is told by the path alone.
bool same_as_recorded(const RunConfig& c, const std::string& path, const std::string& directory) {
  const nlohmann::json run = read_run_record(c.run.directory);
  const auto data = run.find("data");
  if (data != run.end() && data->is_object() && data->contains(path)) {
    return data->at(path) == hash_file(fs::path(directory) / "manifest.json");
  }
  std::error_code code;
  return fs::equivalent(path, directory, code);
}

// Settings of an older version, which hold paths of datasets, in the words of this one.
std::string without_paths(const RunConfig& c, const std::string& before, const std::string& now) {
  std::vector<std::string> lines = lines_of(before), data;
  for (const DataKey& d : data_keys(c)) {
    const std::string begin = std::string(d.key) + " = ";
    const std::string old = line_with(before, begin);
    if (old.empty()) {
      continue;
    }
    std::erase_if(lines, [&](const std::string& line) { return line.starts_with(begin); });
    const std::string holds = line_with(now, std::string(d.key) + " holds ");
    if (!holds.empty()) {  // the stage reads it
      const std::string path = path_in(d.key, old);
      data.push_back(same_as_recorded(c, path, d.directory)
                         ? holds
                         : fmt::format("{} holds what '{}' held", d.key, path));
    }
  }
  lines.insert(lines.end(), data.begin(), data.end());
  return text_of(lines);
}

bool damaged(const std::string& text) {
  return text.empty() || text.back() != '\n' || text.find('\0') != std::string::npos;
}

// What config.toml says for the keys of these settings; the other lines as they are.
std::optional<std::string> from_configuration(const RunConfig& c, const std::string& now) {
  RunConfig before;
  try {
    const std::string path = c.run.directory + "/config.toml";
    if (damaged(read_text(path))) {
      return std::nullopt;
    }
    run_schema().read_file(path, before);
  } catch (const Error&) {
    return std::nullopt;
  }
  std::map<std::string, std::string> values;
  for (const std::string& line : lines_of(settings_of(before, {""}))) {
    values[line.substr(0, line.find(" = "))] = line;
  }
  std::vector<std::string> lines = lines_of(now);
  for (std::string& line : lines) {
    const auto value = values.find(line.substr(0, line.find(" = ")));
    line = value != values.end() ? value->second : line;
  }
  return text_of(lines);
}

// The settings that a checkpoint of the stage holds.
std::optional<std::string> from_checkpoint(const fs::path& directory) {
  std::error_code code;
  for (fs::recursive_directory_iterator entry(directory, code), end; !code && entry != end;
       entry.increment(code)) {
    if (entry->path().filename() != "checkpoints") {
      continue;
    }
    try {
      const Checkpoint c = read_checkpoint(find_checkpoint(entry->path().parent_path()));
      if (const auto found = c.state.find("settings"); found != c.state.end()) {
        return found->second;
      }
    } catch (const Error&) {  // the training will say it
    }
  }
  return std::nullopt;
}

std::string rebuilt(const RunConfig& c, const std::string& stage, const std::string& now) {
  if (const auto record = read_record(c.run.directory, stage)) {
    return record->settings;
  }
  if (const auto held = from_checkpoint(fs::path(c.run.directory) / stage)) {
    return *held;
  }
  const auto told = from_configuration(c, now);
  if (told != now) {
    print_err(
        "WARNING: {}: nothing whole says what this stage was made with{}; it is taken to be "
        "the present settings\n",
        stage, told ? ", and config.toml is of another call" : "");
  }
  return now;
}

std::string first_difference(const std::string& before, const std::string& now) {
  const auto a = lines_of(before), b = lines_of(now);
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    if (i >= b.size()) {
      return fmt::format("'{}', now without it", a[i]);
    }
    if (i >= a.size() || a[i] != b[i]) {
      return fmt::format("'{}', now '{}'", i < a.size() ? a[i] : "", b[i]);
    }
  }
  return "";
}

void check_same(const RunConfig& c, const std::string& directory, const std::string& before,
                const std::string& now) {
  for (const DataKey& d : data_keys(c)) {
    const std::string begin = std::string(d.key) + " holds ";
    TESSERA_CHECK(
        line_with(before, begin) == line_with(now, begin),
        "{}: made with other settings: {} = '{}' holds other jets than this stage was made "
        "from ({}); choose another run.directory",
        directory, d.key, d.directory,
        first_difference(line_with(before, begin), line_with(now, begin)));
  }
  TESSERA_CHECK(before == now, "{}: made with other settings: {}; choose another run.directory",
                directory, first_difference(before, now));
}

// Whether a stage has begun to compute; until then its settings bind nobody.
bool holds_work(const fs::path& directory) {
  constexpr std::string_view kWork[] = {"checkpoints", "done.json", "jets.h5", "model"};
  std::error_code code;
  for (fs::recursive_directory_iterator entry(directory, code), end; !code && entry != end;
       entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    if (std::ranges::find(kWork, name) != std::end(kWork)) {
      return true;
    }
  }
  return false;
}

}  // namespace

DataUse unlabelled_use(const RunConfig& c) {
  return {.jets = true, .taus = c.data.unlabelled == "jets+taus"};
}

DataUse task_use(const std::string& task) {
  return task == "tag" ? DataUse{.jets = true} : DataUse{.taus = true};
}

std::string data_settings(const RunConfig& c, DataUse use) {
  std::string text;
  for (const DataKey& d : data_keys(c, use)) {
    if (d.used) {
      text += fmt::format("{} holds {}\n", d.key, data_hash(read_manifest(d.directory)));
    }
  }
  return text;
}

void hold_settings(const RunConfig& c, const std::string& stage, const std::string& settings) {
  const std::string directory = c.run.directory + "/" + stage, path = directory + "/settings.txt";
  if (!holds_work(directory)) {
    write_if_changed(path, settings);
    return;
  }
  std::error_code code;
  const bool there = fs::exists(path, code);
  std::string before = there ? read_text(path) : "";
  if (damaged(before)) {
    warn_damaged(path);
    before = rebuilt(c, stage, settings);
  }
  check_same(c, directory, without_paths(c, before, settings), settings);
  write_if_changed(path, settings);
}

void check_same_data(const RunConfig& c, const std::string& earlier, DataUse use) {
  const std::string path = c.run.directory + "/" + earlier + "/settings.txt";
  std::error_code code;
  const std::string before = fs::exists(path, code) ? read_text(path) : "";
  const std::string now = data_settings(c, use), translated = without_paths(c, before, now);
  for (const DataKey& d : data_keys(c)) {
    const std::string begin = std::string(d.key) + " holds ";
    const std::string then = line_with(translated, begin), present = line_with(now, begin);
    TESSERA_CHECK(then.empty() || present.empty() || then == present,
                  "{} = '{}' holds other jets than stage {} of this run was made from ('{}', now "
                  "'{}'); choose another run.directory",
                  d.key, d.directory, earlier, then, present);
  }
}

}  // namespace tessera::apps
