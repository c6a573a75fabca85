#include "apps/run_record.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/revision.h"
#include "apps/stage_record.h"
#include "apps/stages.h"
#include "core/parallel.h"
#include "core/simd_level.h"
#include "train/file_io.h"
#include "train/hash.h"
#include "train/json_text.h"
#include "train/manifest.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMostBytes = 64ULL << 20;

ordered_json data_hashes(const RunConfig& c) {
  ordered_json hashes;
  for (const std::string& directory : {c.data.jets, c.data.taus}) {
    const fs::path manifest = fs::path(directory) / "manifest.json";
    if (std::error_code code; fs::exists(manifest, code)) {
      hashes[directory] = hash_file(manifest);
    }
  }
  return hashes;
}

ordered_json provenance(const RunConfig& c) {
  return {{"name", fs::path(c.run.directory).filename()},
          {"simulated", all_simulated(c)},
          {"seed", c.run.seed},
          {"version", TESSERA_VERSION},
          {"revision", TESSERA_REVISION},
          {"compiler", fmt::format("g++ {}", __VERSION__)},
          {"simd", simd_target()},
          {"precision", c.run.precision},
          {"threads", num_threads()},
          {"configuration", hash_text(run_schema().dump(c))},
          {"data", data_hashes(c)}};
}

// "finetune/NAME" stands under NAME, as it always has.
std::string entry_name(const std::string& stage) { return fs::path(stage).filename(); }

// The entries of run.json and of the stages' own records, which are right where both are there, in
// the order in which the stages ended.
ordered_json with_records(nlohmann::json stages, const std::string& run) {
  for (const StageRecord& r : records_of(run)) {
    stages[entry_name(r.stage)] = {
        {"seconds", r.seconds}, {"ended", r.ended}, {"weights", r.weights}};
  }
  std::map<std::pair<std::string, std::string>, nlohmann::json> by_time;
  for (const auto& [name, entry] : stages.items()) {
    by_time[{entry.value("ended", ""), name}] = entry;
  }
  ordered_json ordered = ordered_json::object();
  for (const auto& [key, entry] : by_time) {
    ordered[key.second] = {{"seconds", entry.value("seconds", 0.0)},
                           {"ended", key.first},
                           {"weights", entry.value("weights", "")}};
  }
  return ordered;
}

}  // namespace

bool all_simulated(const RunConfig& c) {
  return std::ranges::all_of(std::array{c.data.jets, c.data.taus}, [](const fs::path& directory) {
    std::error_code code;
    return !fs::exists(directory / "manifest.json", code) || simulated(directory);
  });
}

nlohmann::json read_run_record(const std::string& run) {
  std::error_code code;
  const std::string path = run + "/run.json";
  if (!fs::exists(path, code)) {
    return nlohmann::json::object();
  }
  try {
    nlohmann::json j = parse_json(read_text(path, kMostBytes), path);
    if (j.is_object()) {
      return j;
    }
  } catch (const Error&) {  // the caller makes it again
  }
  return nlohmann::json::object();
}

void update_run_record(const RunConfig& c) {
  const FileLock lock(c.run.directory + "/run.lock", IfLocked::wait);
  const std::string path = c.run.directory + "/run.json";
  const nlohmann::json old = read_run_record(c.run.directory);
  if (std::error_code code; old.empty() && fs::exists(path, code)) {
    warn_damaged(path);
  }
  const nlohmann::json before = old.value("stages", nlohmann::json::object());
  const ordered_json stages = with_records(before, c.run.directory);
  if (!old.empty() && nlohmann::json(stages) == before) {
    return;
  }
  ordered_json j = provenance(c);
  j["stages"] = stages;
  double total = 0;
  for (const auto& [name, entry] : stages.items()) {
    total += entry.value("seconds", 0.0);
  }
  j["seconds"] = total;
  write_text(path, json_text(j, 1) + "\n");
}

}  // namespace tessera::apps
