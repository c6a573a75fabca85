#include "train/manifest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "train/hash.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const FileEntry& e) {
  return {{"file", e.file},
          {"bytes", e.bytes},
          {"xxh3_128", e.xxh3_128},
          {"content_xxh3", e.content_xxh3},
          {"n", e.n},
          {"m", e.m},
          {"max_constituents", e.max_constituents},
          {"class_counts", e.class_counts}};
}

Json to_json(const DatasetManifest& manifest) {
  Json splits = Json::object(), columns = Json::object();
  for (const auto& [split, files] : manifest.splits) {
    splits[split] = Json::array();
    for (const FileEntry& entry : files) {
      splits[split].push_back(to_json(entry));
    }
  }
  for (const auto& [column, s] : manifest.columns) {
    columns[column] = {
        {"dtype", s.dtype}, {"unit", s.unit}, {"mean", s.mean},          {"std", s.std},
        {"min", s.min},     {"max", s.max},   {"n_missing", s.n_missing}};
  }
  return {{"format", "tessera-dataset"},
          {"version", 1},
          {"name", manifest.name},
          {"splits", splits},
          {"columns", columns}};
}

FileEntry entry_from(const Json& j) {
  FileEntry e;
  j.at("file").get_to(e.file);
  j.at("bytes").get_to(e.bytes);
  j.at("xxh3_128").get_to(e.xxh3_128);
  j.at("content_xxh3").get_to(e.content_xxh3);
  j.at("n").get_to(e.n);
  j.at("m").get_to(e.m);
  j.at("max_constituents").get_to(e.max_constituents);
  j.at("class_counts").get_to(e.class_counts);
  const std::filesystem::path file(e.file);
  TESSERA_CHECK_KIND(ErrorKind::data,
                     file.is_relative() && std::find(file.begin(), file.end(), "..") == file.end(),
                     "manifest: expected a file name inside the directory, got '{}'", e.file);
  return e;
}

ColumnStats stats_from(const Json& j) {
  ColumnStats s;
  j.at("dtype").get_to(s.dtype);
  j.at("unit").get_to(s.unit);
  j.at("mean").get_to(s.mean);
  j.at("std").get_to(s.std);
  j.at("min").get_to(s.min);
  j.at("max").get_to(s.max);
  j.at("n_missing").get_to(s.n_missing);
  return s;
}

DatasetManifest manifest_from(const Json& j) {
  TESSERA_CHECK_KIND(ErrorKind::data, j.at("format") == "tessera-dataset" && j.at("version") == 1,
                     "manifest: expected format tessera-dataset version 1, got {} version {}",
                     j.at("format").dump(), j.at("version").dump());
  DatasetManifest manifest;
  j.at("name").get_to(manifest.name);
  for (const auto& [split, files] : j.at("splits").items()) {
    for (const Json& file : files) {
      manifest.splits[split].push_back(entry_from(file));
    }
  }
  for (const auto& [column, stats] : j.at("columns").items()) {
    manifest.columns[column] = stats_from(stats);
  }
  return manifest;
}

// Welford's running mean and variance, in double.
struct Running {
  std::uint64_t count = 0, missing = 0;
  double mean = 0, m2 = 0;
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  void add(double x) {
    if (std::isnan(x)) {
      ++missing;
      return;
    }
    ++count;
    const double delta = x - mean;
    mean += delta / static_cast<double>(count);
    m2 += delta * (x - mean);
    min = std::min(min, x);
    max = std::max(max, x);
  }
  [[nodiscard]] ColumnStats stats(std::string unit) const {
    const double n = static_cast<double>(std::max<std::uint64_t>(count, 1));
    return {.dtype = "f32",
            .unit = std::move(unit),
            .mean = mean,
            .std = std::sqrt(m2 / n),
            .min = count > 0 ? min : 0,
            .max = count > 0 ? max : 0,
            .n_missing = missing};
  }
};

void add_columns(const H5File& file, std::map<std::string, Running>& running,
                 std::map<std::string, std::string>& units) {
  for (const std::string& column : file.columns()) {
    if (file.info(column).type != ColumnType::f32) {
      continue;
    }
    Running& r = running[column];
    for (const float x : file.read_column<float>(column)) {
      r.add(static_cast<double>(x));
    }
    if (file.has_attribute("unit", column)) {
      units[column] = file.read_attribute<std::string>("unit", column);
    }
  }
}

void count_classes(const H5File& file, FileEntry& entry) {
  if (!file.has("label/class") || !file.has_attribute("classes", "label/class")) {
    return;
  }
  const auto classes = file.read_attribute<std::vector<std::string>>("classes", "label/class");
  for (const std::uint8_t c : file.read_column<std::uint8_t>("label/class")) {
    TESSERA_CHECK_KIND(ErrorKind::data, c < classes.size(),
                       "{}: dataset 'label/class': expected 0 to {}, got {}", file.path().string(),
                       static_cast<int>(classes.size()) - 1, c);
    ++entry.class_counts[classes[c]];
  }
}

}  // namespace

std::string content_hash(const H5File& file) {
  Hasher hasher;
  for (const std::string& column : file.columns()) {
    const ColumnInfo info = file.info(column);
    hasher.update(fmt::format("{} {} {}\n", column, name(info.type), info.shape.at(0)));
    hasher.update(file.read_raw(column));
  }
  return hasher.hex();
}

FileEntry describe_file(const std::filesystem::path& directory, const std::string& file) {
  const std::filesystem::path path = directory / file;
  FileEntry entry{.file = file, .xxh3_128 = hash_file(path)};
  entry.bytes = std::filesystem::file_size(path);
  const H5File h5 = H5File::open(path);
  entry.content_xxh3 = content_hash(h5);
  const auto offsets = h5.read_column<std::int64_t>("offsets");
  TESSERA_CHECK_KIND(ErrorKind::data, !offsets.empty(),
                     "{}: dataset 'offsets': expected at least one entry, got 0", path.string());
  entry.n = offsets.size() - 1;
  entry.m = static_cast<std::uint64_t>(offsets.back());
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    entry.max_constituents =
        std::max(entry.max_constituents, static_cast<std::uint64_t>(offsets[i] - offsets[i - 1]));
  }
  count_classes(h5, entry);
  return entry;
}

DatasetManifest make_manifest(const std::filesystem::path& directory, const std::string& name,
                              const std::map<std::string, std::vector<std::string>>& splits) {
  DatasetManifest manifest{.name = name, .splits = {}, .columns = {}};
  std::map<std::string, Running> running;
  std::map<std::string, std::string> units;
  for (const auto& [split, files] : splits) {
    for (const std::string& file : files) {
      manifest.splits[split].push_back(describe_file(directory, file));
      add_columns(H5File::open(directory / file), running, units);
    }
  }
  for (const auto& [column, r] : running) {
    manifest.columns[column] = r.stats(units[column]);
  }
  return manifest;
}

void write_manifest(const std::filesystem::path& directory, const DatasetManifest& manifest,
                    const FileIo& io) {
  io.replace_text(directory / "manifest.json", to_json(manifest).dump(1) + "\n");
}

DatasetManifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "manifest.json";
  TESSERA_CHECK_KIND(ErrorKind::missing, std::filesystem::exists(path),
                     "{}: expected a dataset manifest, got nothing there; make one with: tessera "
                     "inspect --write-manifest {}",
                     path.string(), directory.string());
  try {
    return manifest_from(Json::parse(read_text(path, 256ULL << 20)));
  } catch (const Json::exception& e) {
    TESSERA_FAIL(ErrorKind::data, "{}: {}", path.string(), e.what());
  } catch (const Error& e) {
    TESSERA_FAIL(e.kind(), "{}: {}", path.string(), e.message());
  }
}

void verify_file(const std::filesystem::path& directory, const FileEntry& entry, Verify verify) {
  const std::filesystem::path path = directory / entry.file;
  TESSERA_CHECK_KIND(ErrorKind::missing, std::filesystem::is_regular_file(path),
                     "{}: listed in the manifest, got nothing there", path.string());
  const std::uint64_t bytes = std::filesystem::file_size(path);
  TESSERA_CHECK_KIND(ErrorKind::data, bytes == entry.bytes,
                     "{}: expected {} bytes (manifest), got {}", path.string(), entry.bytes, bytes);
  if (verify != Verify::hash) {
    return;
  }
  const std::string hash = hash_file(path);
  TESSERA_CHECK_KIND(ErrorKind::data, hash == entry.xxh3_128,
                     "{}: expected XXH3-128 {} (manifest), got {}: the file is damaged",
                     path.string(), entry.xxh3_128, hash);
}

std::string manifest_hash(const DatasetManifest& manifest) {
  return hash_text(to_json(manifest).dump());
}

}  // namespace tessera
