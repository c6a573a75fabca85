#include "apps/run_record.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/revision.h"
#include "apps/stages.h"
#include "core/parallel.h"
#include "core/simd_level.h"
#include "train/hash.h"
#include "train/json_text.h"
#include "train/manifest.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

ordered_json data_hashes(const RunConfig& c) {
  ordered_json hashes;
  for (const std::string& directory : {c.data.jets, c.data.taus}) {
    if (const fs::path manifest = fs::path(directory) / "manifest.json"; fs::exists(manifest)) {
      hashes[directory] = hash_file(manifest);
    }
  }
  return hashes;
}

std::string now_utc() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace

bool all_simulated(const RunConfig& c) {
  return std::ranges::all_of(std::array{c.data.jets, c.data.taus}, [](const fs::path& directory) {
    return !fs::exists(directory / "manifest.json") || simulated(directory);
  });
}

void record_stage(const RunConfig& c, const std::string& stage, double seconds,
                  const std::string& weights_hash) {
  const std::string path = c.run.directory + "/run.json";
  const ordered_json old =
      fs::exists(path) ? ordered_json::parse(std::ifstream(path)) : ordered_json::object();
  ordered_json j{{"name", fs::path(c.run.directory).filename()},
                 {"simulated", all_simulated(c)},
                 {"seed", c.run.seed},
                 {"version", TESSERA_VERSION},
                 {"revision", TESSERA_REVISION},
                 {"compiler", fmt::format("g++ {}", __VERSION__)},
                 {"simd", simd_target()},
                 {"precision", c.run.precision},
                 {"threads", num_threads()},
                 {"configuration", hash_text(run_schema().dump(c))},
                 {"data", data_hashes(c)},
                 {"stages", old.value("stages", ordered_json::object())}};
  j["stages"][stage] = {{"seconds", seconds}, {"ended", now_utc()}, {"weights", weights_hash}};
  double total = 0;
  for (const auto& [name, entry] : j["stages"].items()) {
    total += entry.at("seconds").get<double>();
  }
  j["seconds"] = total;
  write_text(path, json_text(j, 1) + "\n");
}

}  // namespace tessera::apps
