#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "train/hash.h"
#include "train/json_text.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMaxJson = 64ULL << 20;
constexpr const char* kManifest = "MANIFEST.json";

struct ManifestFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::string hash;
};

// One text for one content: the reader compares it whole, so that no flipped bit of it passes.
std::string manifest_text(std::uint64_t step, const std::vector<ManifestFile>& files) {
  Json list = Json::array();
  for (const ManifestFile& f : files) {
    list.push_back({{"name", f.name}, {"bytes", f.bytes}, {"xxh3_128", f.hash}});
  }
  Json manifest = {
      {"format", "tessera-checkpoint"}, {"version", 1}, {"step", step}, {"files", list}};
  manifest["self"] = hash_text(manifest.dump());
  return manifest.dump(1) + "\n";
}

std::string step_name(std::uint64_t step) { return fmt::format("step-{:06}", step); }

std::optional<std::uint64_t> step_of(const std::string& name) {
  if (!name.starts_with("step-")) {
    return std::nullopt;
  }
  std::uint64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, code] = std::from_chars(name.data() + 5, end, step);
  return code == std::errc{} && stop == end ? std::optional(step) : std::nullopt;
}

struct ParsedManifest {
  std::uint64_t step = 0;
  std::vector<ManifestFile> files;
};

ParsedManifest read_manifest_file(const fs::path& directory) {
  const fs::path path = directory / kManifest;
  const std::string text = read_text(path, kMaxJson);
  ParsedManifest parsed;
  try {
    const nlohmann::json j = parse_json(text, path.string());
    parsed.step = count_at(j, "step");
    for (const nlohmann::json& f : j.at("files")) {
      parsed.files.push_back({f.at("name"), count_at(f, "bytes"), f.at("xxh3_128")});
    }
  } catch (const Json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: {}", path.string(), e.what());
  }
  TESSERA_CHECK_KIND(ErrorKind::data, text == manifest_text(parsed.step, parsed.files),
                     "{}: expected an unchanged manifest of version 1, got a damaged one",
                     path.string());
  for (const ManifestFile& f : parsed.files) {
    TESSERA_CHECK_KIND(ErrorKind::data, f.name.find('/') == std::string::npos && f.name != "..",
                       "{}: expected plain file names, got '{}'", path.string(), f.name);
  }
  return parsed;
}

// Every file that a reader would take from the directory.
constexpr const char* kReadable[] = {
    "config.json",     "model.safetensors", "optimizer.safetensors",
    "ema.safetensors", "state.json",        "preprocess.json"};

bool lists(const ParsedManifest& manifest, std::string_view file) {
  return std::ranges::find(manifest.files, file, &ManifestFile::name) != manifest.files.end();
}

// A manifest vouches for the files that it lists, and for no others.
void check_listed(const fs::path& directory, const ParsedManifest& manifest) {
  TESSERA_CHECK_KIND(ErrorKind::data, !manifest.files.empty(),
                     "{}: expected a list of files with their hashes, got an empty one",
                     (directory / kManifest).string());
  for (const char* file : kReadable) {
    std::error_code code;
    TESSERA_CHECK_KIND(ErrorKind::data,
                       lists(manifest, file) || !fs::exists(directory / file, code),
                       "{}: expected every file to be listed in {}, got one that it does not list",
                       (directory / file).string(), kManifest);
  }
}

ParsedManifest verified_manifest(const fs::path& directory) {
  std::error_code code;
  TESSERA_CHECK_KIND(ErrorKind::missing, fs::is_directory(directory, code),
                     "{}: expected a checkpoint directory, got nothing there", directory.string());
  ParsedManifest manifest = read_manifest_file(directory);
  check_listed(directory, manifest);
  for (const ManifestFile& f : manifest.files) {
    const fs::path path = directory / f.name;
    const bool present = fs::is_regular_file(path, code);
    const std::uint64_t bytes = present ? fs::file_size(path, code) : 0;
    TESSERA_CHECK_KIND(ErrorKind::data, present && bytes == f.bytes,
                       "{}: expected {} bytes (manifest), got {}", path.string(), f.bytes, bytes);
    const std::string hash = hash_file(path);
    TESSERA_CHECK_KIND(ErrorKind::data, hash == f.hash,
                       "{}: expected XXH3-128 {} (manifest), got {}: the file is damaged",
                       path.string(), f.hash, hash);
  }
  return manifest;
}

Safetensors tensors_in(const fs::path& directory, const char* file) {
  const fs::path path = directory / file;
  return fs::exists(path) ? read_safetensors(path) : Safetensors{};
}

std::string text_in(const fs::path& directory, const char* file) {
  const fs::path path = directory / file;
  return fs::exists(path) ? read_text(path, kMaxJson) : "";
}

std::map<std::string, std::string> state_in(const fs::path& directory) {
  const std::string text = text_in(directory, "state.json");
  if (text.empty()) {
    return {};
  }
  const std::string name = (directory / "state.json").string();
  try {
    return parse_json(text, name).get<std::map<std::string, std::string>>();
  } catch (const Json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: {}", name, e.what());
  }
}

Checkpoint read_content(const fs::path& directory) {
  Checkpoint c{.config_json = text_in(directory, "config.json"),
               .model = tensors_in(directory, "model.safetensors").tensors,
               .optimizer = tensors_in(directory, "optimizer.safetensors").tensors,
               .ema = tensors_in(directory, "ema.safetensors").tensors,
               .state = state_in(directory),
               .preprocess_json = text_in(directory, "preprocess.json")};
  check_finite(c.model, ErrorKind::data, (directory / "model.safetensors").string());
  check_finite(c.ema, ErrorKind::data, (directory / "ema.safetensors").string());
  return c;
}

}  // namespace

void check_finite(const TensorMap& weights, ErrorKind kind, const std::string& what) {
  for (const auto& [name, tensor] : weights) {
    if (tensor.dtype() != DType::f32) {
      continue;
    }
    const auto values = tensor.to_vector<float>();
    const auto bad =
        std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
    if (bad != values.end()) {
      TESSERA_FAIL(kind, "{}: tensor '{}', element {}: expected a finite value, got {}", what, name,
                   bad - values.begin(), *bad);
    }
  }
}

void write_checkpoint(const fs::path& directory, std::uint64_t step, const Checkpoint& content,
                      const FileIo& io) {
  io.make_directory(directory);
  std::vector<ManifestFile> files;
  const auto list = [&](const char* file) {
    files.push_back({file, fs::file_size(directory / file), hash_file(directory / file)});
  };
  const auto write_tensors = [&](const char* file, const TensorMap& tensors) {
    if (!tensors.empty()) {
      write_safetensors(directory / file, tensors, {{"format", "tessera"}}, io);
      list(file);
    }
  };
  const auto write_json = [&](const char* file, const std::string& text) {
    if (!text.empty()) {
      io.write_text(directory / file, text);
      list(file);
    }
  };
  write_json("config.json", content.config_json);
  write_tensors("model.safetensors", content.model);
  write_tensors("optimizer.safetensors", content.optimizer);
  write_tensors("ema.safetensors", content.ema);
  write_json("state.json", content.state.empty() ? "" : Json(content.state).dump(1) + "\n");
  write_json("preprocess.json", content.preprocess_json);
  io.write_text(directory / kManifest, manifest_text(step, files));
  io.sync_directory(directory);
}

void verify_checkpoint(const fs::path& directory) { (void)verified_manifest(directory); }

Checkpoint read_checkpoint(const fs::path& directory) {
  verify_checkpoint(directory);
  return read_content(directory);
}

namespace {

// Made before the lock, which lies inside it.
fs::path make_run_directory(const fs::path& run_directory, const FileIo& io) {
  io.make_directory(run_directory / "checkpoints");
  return run_directory / "checkpoints";
}

std::vector<std::uint64_t> steps_in(const fs::path& directory) {
  std::vector<std::uint64_t> steps;
  std::error_code code;
  for (fs::directory_iterator entry(directory, code), end; !code && entry != end;
       entry.increment(code)) {
    if (const auto step = step_of(entry->path().filename().string())) {
      steps.push_back(*step);
    }
  }
  TESSERA_CHECK_KIND(ErrorKind::io, !code, "{}: cannot list it: {}", directory.string(),
                     code.message());
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path run_directory, CheckpointOptions options, FileIo io)
    : directory_(make_run_directory(run_directory, io)),
      options_(options),
      io_(std::move(io)),
      lock_(run_directory / "run.lock") {
  TESSERA_CHECK(options_.keep_last > 0, "checkpoint.keep_last: expected at least 1, got 0");
  std::vector<fs::path> leftovers;
  std::error_code code;  // a folder that cannot be listed fails at the first save
  for (fs::directory_iterator entry(directory_, code), end; !code && entry != end;
       entry.increment(code)) {
    if (entry->path().filename().string().find(".tmp.") != std::string::npos) {
      leftovers.push_back(entry->path());
    }
  }
  for (const fs::path& path : leftovers) {
    io_.remove_all(path);
  }
}

fs::path CheckpointStore::path_of(std::uint64_t step) const { return directory_ / step_name(step); }
std::vector<std::uint64_t> CheckpointStore::steps() const { return steps_in(directory_); }

void CheckpointStore::save(std::uint64_t step, const Checkpoint& content) {
  if (fs::exists(path_of(step))) {
    return;
  }
  check_finite(content.model, ErrorKind::numeric, "checkpoint");
  io_.replace(path_of(step),
              [&](const fs::path& temporary) { write_checkpoint(temporary, step, content, io_); });
  io_.replace_text(directory_ / "latest", step_name(step) + "\n");
  prune(step);
}

void CheckpointStore::prune(std::uint64_t newest) {
  const std::vector<std::uint64_t> all = steps();
  for (std::size_t i = 0; i + options_.keep_last < all.size(); ++i) {
    const bool milestone = options_.keep_every > 0 && all[i] % options_.keep_every == 0;
    if (!milestone && all[i] != newest) {
      io_.remove_all(path_of(all[i]));
    }
  }
}

void CheckpointStore::set_aside_newer(std::uint64_t step) {
  for (const std::uint64_t newer : steps()) {
    if (newer <= step) {
      continue;
    }
    fs::path target = directory_ / ("stale-" + step_name(newer));
    for (int copy = 1; fs::exists(target); ++copy) {
      target = directory_ / fmt::format("stale-{}.{}", step_name(newer), copy);
    }
    io_.rename(path_of(newer), target);
  }
  io_.sync_directory(directory_);
}

CheckpointStore::Loaded CheckpointStore::load(std::uint64_t step) {
  const ParsedManifest manifest = verified_manifest(path_of(step));
  TESSERA_CHECK_KIND(ErrorKind::data, manifest.step == step,
                     "{}: expected step {} in its manifest, got {}", path_of(step).string(), step,
                     manifest.step);
  Loaded loaded{.step = step, .content = read_content(path_of(step)), .skipped = {}};
  set_aside_newer(step);
  return loaded;
}

std::optional<CheckpointStore::Loaded> CheckpointStore::load_latest() {
  std::vector<std::uint64_t> all = steps();
  std::vector<std::string> skipped;
  for (; !all.empty(); all.pop_back()) {
    try {
      Loaded loaded = load(all.back());
      loaded.skipped = std::move(skipped);
      return loaded;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::data && e.kind() != ErrorKind::missing) {
        throw;
      }
      skipped.push_back(e.message());
    }
  }
  TESSERA_CHECK_KIND(ErrorKind::data, skipped.empty(),
                     "{}: expected a checkpoint that verifies, got none; the newest says: {}",
                     directory_.string(), skipped.front());
  return std::nullopt;
}

fs::path find_checkpoint(const fs::path& run_or_checkpoint) {
  if (fs::exists(run_or_checkpoint / kManifest)) {
    return run_or_checkpoint;
  }
  const fs::path directory = run_or_checkpoint / "checkpoints";
  std::string reason = "nothing there";
  if (fs::is_directory(directory)) {
    const std::vector<std::uint64_t> all = steps_in(directory);
    for (auto step = all.rbegin(); step != all.rend(); ++step) {
      try {
        verify_checkpoint(directory / step_name(*step));
        return directory / step_name(*step);
      } catch (const Error& e) {
        reason = e.message();
      }
    }
  }
  TESSERA_FAIL(ErrorKind::missing, "{}: expected a run directory or a checkpoint, got {}",
               run_or_checkpoint.string(), reason);
}

}  // namespace tessera
