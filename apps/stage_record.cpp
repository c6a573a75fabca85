#include "apps/stage_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/output.h"
#include "apps/stages.h"
#include "train/checkpoint.h"
#include "train/file_io.h"
#include "train/hash.h"
#include "train/json_text.h"
#include "train/native_file.h"
#include "train/safetensors.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMostBytes = 64ULL << 20;
constexpr const char* kFile = "done.json";

// One text for one content: the reader compares it whole.
std::string text_of(const StageRecord& r) {
  ordered_json files = ordered_json::array();
  for (const Product& p : r.files) {
    files.push_back({{"path", p.path}, {"bytes", p.bytes}, {"xxh3_128", p.xxh3_128}});
  }
  ordered_json j{{"stage", r.stage}, {"settings", r.settings}, {"seconds", r.seconds},
                 {"ended", r.ended}, {"weights", r.weights},   {"files", files}};
  j["self"] = hash_text(j.dump());
  return j.dump(1) + "\n";
}

StageRecord record_from(const std::string& text, const std::string& name) {
  const nlohmann::json j = parse_json(text, name);
  StageRecord r;
  j.at("stage").get_to(r.stage);
  j.at("settings").get_to(r.settings);
  j.at("seconds").get_to(r.seconds);
  j.at("ended").get_to(r.ended);
  j.at("weights").get_to(r.weights);
  for (const nlohmann::json& f : j.at("files")) {
    r.files.push_back({f.at("path"), count_at(f, "bytes"), f.at("xxh3_128")});
  }
  TESSERA_CHECK_KIND(ErrorKind::data, text == text_of(r), "{}: damaged", name);
  return r;
}

bool is_json(const fs::path& path) { return nlohmann::json::accept(read_text(path, kMostBytes)); }

void add_records(const fs::path& run, const std::string& below, std::vector<StageRecord>& records) {
  std::error_code code;
  std::vector<std::string> stages;
  for (fs::directory_iterator entry(run / below, code), end; !code && entry != end;
       entry.increment(code)) {
    if (fs::exists(entry->path() / kFile, code)) {
      stages.push_back(below + entry->path().filename().string());
    }
  }
  std::ranges::sort(stages);
  for (const std::string& stage : stages) {
    if (auto record = read_record(run, stage)) {
      records.push_back(std::move(*record));
    }
  }
}

}  // namespace

Product describe_product(const fs::path& run, const std::string& path) {
  Product p{.path = path, .xxh3_128 = hash_file(run / path)};
  std::error_code code;
  p.bytes = fs::file_size(run / path, code);
  TESSERA_CHECK_KIND(ErrorKind::io, !code, "{}: cannot ask for its size: {}", (run / path).string(),
                     code.message());
  return p;
}

void write_record(const fs::path& run, const StageRecord& record) {
  write_text((run / record.stage / kFile).string(), text_of(record));
}

std::optional<StageRecord> read_record(const fs::path& run, const std::string& stage) {
  const fs::path path = run / stage / kFile;
  std::error_code code;
  if (!fs::exists(path, code)) {
    return std::nullopt;
  }
  try {
    return record_from(read_text(path, kMostBytes), path.string());
  } catch (const Error&) {
  } catch (const nlohmann::json::exception&) {
  }
  warn_damaged(path.string());
  return std::nullopt;
}

std::vector<StageRecord> records_of(const fs::path& run) {
  std::vector<StageRecord> records;
  add_records(run, "", records);
  add_records(run, "finetune/", records);
  return records;
}

bool unchanged(const fs::path& run, const Product& product) {
  std::error_code code;
  return fs::file_size(run / product.path, code) == product.bytes && !code &&
         hash_file(run / product.path) == product.xxh3_128;
}

bool readable(const fs::path& run, const std::string& path) {
  const fs::path file = run / path;
  std::error_code code;
  if (!fs::is_regular_file(file, code)) {
    return false;
  }
  try {
    if (file.filename() == "MANIFEST.json") {
      verify_checkpoint(file.parent_path());
    } else if (file.extension() == ".safetensors") {
      (void)read_safetensors(file);
    } else if (file.extension() == ".h5") {
      check_native_file(file);
    } else {
      return is_json(file);
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace tessera::apps
