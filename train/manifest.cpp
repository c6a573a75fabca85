#include "train/manifest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "train/file_kind.h"
#include "train/hash.h"
#include "train/json_text.h"
#include "train/names.h"
#include "train/native_file.h"
#include "train/path_hints.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;

// Version 2 ends with a hash of its content, so that no flipped bit of it passes; version 1 is
// read.
constexpr int kVersion = 2;

// Rows of a column in memory at once.
constexpr std::uint64_t kReadAtOnce = 1U << 20U;

constexpr std::pair<const char*, std::optional<double> ColumnStats::*> kStatistics[] = {
    {"mean", &ColumnStats::mean},
    {"std", &ColumnStats::std},
    {"min", &ColumnStats::min},
    {"max", &ColumnStats::max}};

// Weights only where there are some: a manifest without any has the text that it always had.
Json to_json(const FileEntry& e) {
  Json json{{"file", e.file},
            {"bytes", e.bytes},
            {"xxh3_128", e.xxh3_128},
            {"content_xxh3", e.content_xxh3},
            {"n", e.n},
            {"m", e.m},
            {"max_constituents", e.max_constituents},
            {"class_counts", e.class_counts}};
  for (const auto& [name, w] : e.class_weights) {
    json["class_weights"][name] = {{"sum", w.sum}, {"squares", w.squares}};
  }
  return json;
}

Json to_json(const ColumnStats& s) {
  Json json{{"dtype", s.dtype}, {"unit", s.unit}};
  for (const auto& [name, member] : kStatistics) {
    if (s.*member) {
      json[name] = *(s.*member);
    }
  }
  json["n_missing"] = s.n_missing;
  return json;
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
    columns[column] = to_json(s);
  }
  return {{"format", "tessera-dataset"},
          {"version", kVersion},
          {"name", manifest.name},
          {"splits", splits},
          {"columns", columns}};
}

// One text for one content: the reader compares it whole.
std::string text_of(const DatasetManifest& manifest) {
  Json json = to_json(manifest);
  json["self"] = hash_text(json.dump());
  return json.dump(1) + "\n";
}

FileEntry entry_from(const nlohmann::json& j) {
  FileEntry e;
  j.at("file").get_to(e.file);
  e.bytes = count_at(j, "bytes");
  j.at("xxh3_128").get_to(e.xxh3_128);
  j.at("content_xxh3").get_to(e.content_xxh3);
  e.n = count_at(j, "n");
  e.m = count_at(j, "m");
  e.max_constituents = count_at(j, "max_constituents");
  TESSERA_CHECK_KIND(ErrorKind::data, j.at("class_counts").size() <= 256,
                     "manifest: '{}': expected at most 256 classes, got {}", e.file,
                     j.at("class_counts").size());
  for (const auto& [name, count] : j.at("class_counts").items()) {
    e.class_counts[name] = count_at(j.at("class_counts"), name);
  }
  if (j.contains("class_weights")) {
    for (const auto& [name, w] : j.at("class_weights").items()) {
      e.class_weights[name] = {w.at("sum").get<double>(), w.at("squares").get<double>()};
    }
  }
  const std::filesystem::path file(e.file);
  TESSERA_CHECK_KIND(ErrorKind::data,
                     file.is_relative() && std::find(file.begin(), file.end(), "..") == file.end(),
                     "manifest: expected a file name inside the directory, got '{}'", e.file);
  return e;
}

ColumnStats stats_from(const nlohmann::json& j) {
  ColumnStats s;
  j.at("dtype").get_to(s.dtype);
  j.at("unit").get_to(s.unit);
  for (const auto& [name, member] : kStatistics) {
    if (j.contains(name)) {
      s.*member = j.at(name).get<double>();
    }
  }
  s.n_missing = count_at(j, "n_missing");
  return s;
}

DatasetManifest manifest_from(const nlohmann::json& j) {
  const std::uint64_t version = count_at(j, "version");
  TESSERA_CHECK_KIND(ErrorKind::data,
                     j.at("format") == "tessera-dataset" && (version == 1 || version == kVersion),
                     "manifest: expected format tessera-dataset version 1 or {}, got {} version {}",
                     kVersion, j.at("format").dump(), version);
  DatasetManifest manifest;
  j.at("name").get_to(manifest.name);
  for (const auto& [split, files] : j.at("splits").items()) {
    for (const nlohmann::json& file : files) {
      manifest.splits[split].push_back(entry_from(file));
    }
  }
  // The writer's ordered objects take quadratic time.
  TESSERA_CHECK_KIND(ErrorKind::data, j.at("columns").size() <= 4096 && j.at("splits").size() <= 64,
                     "manifest: expected at most 4096 columns and 64 splits, got {} and {}",
                     j.at("columns").size(), j.at("splits").size());
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
    if (!std::isfinite(x)) {
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
    if (count == 0) {
      return {.dtype = "f32", .unit = std::move(unit), .n_missing = missing};
    }
    return {.dtype = "f32",
            .unit = std::move(unit),
            .mean = mean,
            .std = std::sqrt(m2 / static_cast<double>(count)),
            .min = min,
            .max = max,
            .n_missing = missing};
  }
};

std::string unit_of(const H5File& file, const std::string& column) {
  auto unit = file.read_attribute<std::string>("unit", column);
  if (!unit.empty()) {
    check_name(unit,
               fmt::format("{}: dataset '{}', attribute 'unit'", file.path().string(), column));
  }
  return unit;
}

void add_columns(const H5File& file, std::map<std::string, Running>& running,
                 std::map<std::string, std::string>& units) {
  for (const std::string& column : file.columns()) {
    if (!file.is_column(column) || file.info(column).type != ColumnType::f32) {
      continue;
    }
    check_name(column, fmt::format("{}: a dataset", file.path().string()));
    Running& r = running[column];
    for (std::uint64_t begin = 0, end = file.size(column); begin < end; begin += kReadAtOnce) {
      const auto piece = std::min(kReadAtOnce, end - begin);
      for (const float x : file.read_range<float>(column, begin, piece)) {
        r.add(static_cast<double>(x));
      }
    }
    units[column] =
        file.has_attribute("unit", column) ? unit_of(file, column) : column_unit(column);
  }
}

void count_classes(const NativeFile& file, FileEntry& entry) {
  for (const std::uint8_t c : file.class_labels()) {
    ++entry.class_counts[file.classes()[c]];
  }
}

void sum_weights(const NativeFile& file, FileEntry& entry) {
  const std::vector<float> weights = file.weights();
  if (std::ranges::all_of(weights, [](float w) { return w == 1; })) {
    return;
  }
  const std::vector<std::uint8_t> labels = file.class_labels();
  for (std::size_t j = 0; j < weights.size(); ++j) {
    WeightSums& sums = entry.class_weights[labels.empty() ? "" : file.classes()[labels[j]]];
    const double w = static_cast<double>(weights[j]);
    sums.sum += w;
    sums.squares += w * w;
  }
}

// What the writer hashed before the file came here; files of other writers may lack it.
void check_content(const H5File& file, const std::string& got) {
  if (file.has_attribute("content_xxh3")) {
    const auto want = file.read_attribute<std::string>("content_xxh3");
    TESSERA_CHECK_KIND(ErrorKind::data, got == want,
                       "{}: attribute 'content_xxh3': expected {} of its columns, got {}: the file "
                       "is damaged",
                       file.path().string(), want, got);
  }
}

// An id is the key of a jet's random numbers and of predictions, and one that comes twice may be a
// jet in two splits.
class UniqueIds {
 public:
  void add(const std::filesystem::path& path) {
    paths_.push_back(path);
    ids_.push_back(NativeFile(path).ids());
  }
  void check() const {
    std::vector<std::uint64_t> all;
    for (const auto& ids : ids_) {
      all.insert(all.end(), ids.begin(), ids.end());
    }
    std::sort(all.begin(), all.end());
    const auto twice = std::adjacent_find(all.begin(), all.end());
    if (twice != all.end()) {
      fail(*twice);
    }
  }

 private:
  [[noreturn]] void fail(std::uint64_t id) const {
    std::vector<std::string> places;
    for (std::size_t f = 0; f < paths_.size(); ++f) {
      for (std::size_t row = 0; row < ids_[f].size(); ++row) {
        if (ids_[f][row] == id) {
          places.push_back(fmt::format("{}: dataset 'id', row {}", paths_[f].string(), row));
        }
      }
    }
    TESSERA_FAIL(ErrorKind::data, "{}: expected an id of its own, got {} as in {}", places.at(1),
                 id, places.at(0));
  }
  std::vector<std::filesystem::path> paths_;
  std::vector<std::vector<std::uint64_t>> ids_;
};

}  // namespace

std::string content_hash(const H5File& file) {
  Hasher hasher;
  for (const std::string& column : file.columns()) {
    if (!file.is_column(column)) {
      continue;  // a note of somebody's, which no reader of ours looks at
    }
    const ColumnInfo info = file.info(column);
    hasher.update(fmt::format("{} {} {}\n", column, name(info.type), info.shape.at(0)));
    const std::uint64_t rows = info.shape.at(0);
    for (std::uint64_t begin = 0; begin < rows; begin += kReadAtOnce) {
      hasher.update(file.read_raw(column, begin, std::min(kReadAtOnce, rows - begin)));
    }
  }
  return hasher.hex();
}

FileEntry describe_file(const std::filesystem::path& directory, const std::string& file) {
  const std::filesystem::path path = directory / file;
  check_name(file, directory.string());
  FileEntry entry{.file = file, .xxh3_128 = hash_file(path)};
  entry.bytes = std::filesystem::file_size(path);
  check_native_file(path);
  const NativeFile native(path);
  entry.content_xxh3 = content_hash(native.h5());
  check_content(native.h5(), entry.content_xxh3);
  entry.n = native.jets();
  entry.m = static_cast<std::uint64_t>(native.offsets().back());
  for (std::size_t i = 1; i < native.offsets().size(); ++i) {
    entry.max_constituents =
        std::max(entry.max_constituents,
                 static_cast<std::uint64_t>(native.offsets()[i] - native.offsets()[i - 1]));
  }
  count_classes(native, entry);
  sum_weights(native, entry);
  return entry;
}

void refuse_equal_jets(const EqualJets& equal) {
  TESSERA_FAIL(ErrorKind::data,
               "{}: row {}: expected a jet of its own, got the constituents of row {} of {} under "
               "another id{}",
               equal.second.file.string(), equal.second.row, equal.first.row,
               equal.first.file.string(),
               equal.others > 0 ? fmt::format(" (and {} more such jets)", equal.others) : "");
}

DatasetManifest make_manifest(const std::filesystem::path& directory, const std::string& name,
                              const std::map<std::string, std::vector<std::string>>& splits,
                              const OnEqualJets& on_equal_jets) {
  DatasetManifest manifest{.name = one_line(name), .splits = {}, .columns = {}};
  std::map<std::string, Running> running;
  std::map<std::string, std::string> units;
  UniqueIds ids;
  EqualJetSearch jets;
  for (const auto& [split, files] : splits) {
    for (const std::string& file : files) {
      manifest.splits[split].push_back(describe_file(directory, file));
      add_columns(H5File::open(directory / file), running, units);
      ids.add(directory / file);
      jets.add(directory / file);
    }
  }
  ids.check();
  if (const auto equal = jets.find()) {
    on_equal_jets(*equal);
  }
  for (const auto& [column, r] : running) {
    manifest.columns[column] = r.stats(units[column]);
  }
  return manifest;
}

void write_manifest(const std::filesystem::path& directory, const DatasetManifest& manifest,
                    const FileIo& io) {
  io.replace_text(directory / "manifest.json", text_of(manifest));
}

DatasetManifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "manifest.json";
  TESSERA_CHECK_KIND(ErrorKind::missing, is_plain_file(path),
                     "{}: expected a dataset manifest, got {}", path.string(),
                     dataset_hint(directory));
  try {
    const std::string text = read_text(path, 256ULL << 20);
    const nlohmann::json json = parse_json(text, "manifest");
    DatasetManifest manifest = manifest_from(json);
    TESSERA_CHECK_KIND(ErrorKind::data, json.at("version") == 1 || text == text_of(manifest),
                       "expected the text that its hash belongs to, got a damaged or edited one; "
                       "make it again with: tessera inspect --write-manifest {}",
                       shell_word(directory.string()));
    const bool empty = std::ranges::all_of(manifest.splits,
                                           [](const auto& split) { return split.second.empty(); });
    TESSERA_CHECK_KIND(ErrorKind::data, !empty, "expected a file in a split, got none");
    return manifest;
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

bool simulated(const std::filesystem::path& directory) {
  const auto real = [&](const FileEntry& entry) {
    const H5File file = H5File::open(directory / entry.file);
    return file.has_attribute("simulated") && file.read_attribute<std::int64_t>("simulated") == 0;
  };
  const DatasetManifest manifest = read_manifest(directory);
  return std::ranges::none_of(
      manifest.splits, [&](const auto& split) { return std::ranges::any_of(split.second, real); });
}

std::string data_hash(const DatasetManifest& manifest) {
  std::string text;
  for (const auto& [split, files] : manifest.splits) {
    for (const FileEntry& entry : files) {
      text += fmt::format("{} {} {}\n", split, entry.bytes, entry.xxh3_128);
    }
  }
  return hash_text(text);
}

std::string manifest_hash(const DatasetManifest& manifest) {
  return hash_text(to_json(manifest).dump());
}

}  // namespace tessera
