// tessera inspect: what a preset, a model or a dataset is. tessera doctor: what the machine is.
// tessera verify: whether files are what they were.
#include <hwy/highway.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/stages.h"
#include "core/device.h"
#include "core/parallel.h"
#include "train/checkpoint.h"
#include "train/file_io.h"
#include "train/manifest.h"
#include "train/safetensors.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

ordered_json omnijet_alpha_counts() {
  Rng rng(0);
  const Tokenizer tokenizer({}, rng);
  const GptBackbone backbone({}, rng);
  const NextTokenHead head(backbone.config.width, backbone.config.vocabulary, rng);
  return {{"preset", "omnijet-alpha"},
          {"tokenizer", tokenizer.parameter_count()},
          {"backbone", backbone.parameter_count()},
          {"next_token_head", head.parameter_count()},
          {"generative_total", backbone.parameter_count() + head.parameter_count()}};
}

ordered_json preset_counts(const std::string& preset, const TokenizerConfig& t,
                           const BackboneConfig& b, const PretrainConfig& p) {
  Rng rng(0);
  const Tokenizer tokenizer(t, rng);
  const PretrainModel model(b, p, rng);
  return {{"preset", preset},
          {"tokenizer", tokenizer.parameter_count()},
          {"backbone", model.backbone.parameter_count()},
          {"pretrain_total", model.parameter_count()}};
}

ordered_json counts_of(const std::string& preset) {
  if (preset == "omnijet-alpha") {
    return omnijet_alpha_counts();
  }
  if (preset == "tiny") {
    const RunConfig tiny;
    return preset_counts(preset, tokenizer_config(tiny), backbone_config(tiny),
                         pretrain_config(tiny));
  }
  if (preset == "tessera-s") {
    return preset_counts(preset,
                         {.width = 64,
                          .blocks = 3,
                          .heads = 4,
                          .mlp_factor = 2,
                          .codes = 2048,
                          .causal_decoder = true},
                         {}, {.codes = 2048, .max_particles = 128});
  }
  TESSERA_FAIL(
      ErrorKind::usage,
      "inspect: expected preset omnijet-alpha, tiny or tessera-s, or a directory, got '{}'",
      preset);
}

ordered_json describe_model(const fs::path& directory) {
  const Checkpoint c = read_checkpoint(directory);
  std::int64_t scalars = 0;
  for (const auto& [name, tensor] : c.model) {
    scalars += tensor.size();
  }
  ordered_json j{
      {"directory", directory.string()}, {"tensors", c.model.size()}, {"scalars", scalars}};
  if (!c.config_json.empty()) {
    j["config"] = ordered_json::parse(c.config_json);
  }
  if (!c.state.empty()) {
    j["state"] = c.state;
  }
  return j;
}

ordered_json describe(const std::string& what) {
  const fs::path path(what);
  if (fs::exists(path / "MANIFEST.json")) {
    return describe_model(path);
  }
  if (fs::exists(path / "manifest.json")) {
    return ordered_json::parse(read_text((path / "manifest.json").string()));
  }
  return counts_of(what);
}

std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::int64_t kibibytes(int name) { return ::sysconf(name) / 1024; }

}  // namespace

void inspect_verb(const InspectArguments& arguments) {
  const ordered_json j = describe(arguments.what);
  if (arguments.json) {
    fmt::print("{}\n", j.dump());
    return;
  }
  for (const auto& [key, value] : j.items()) {
    fmt::print("{:18} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump(1));
  }
}

void doctor_verb(bool json) {
  std::string list;
  for (const Device d : devices()) {
    list += fmt::format("{}{}", list.empty() ? "" : ", ", name(d.type));
  }
  const ordered_json j{
      {"version", TESSERA_VERSION},
      {"compiler", fmt::format("g++ {}", __VERSION__)},
      {"devices", list},
      {"threads", num_threads()},
      {"SIMD", hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets())},
      {"L1d KiB", kibibytes(_SC_LEVEL1_DCACHE_SIZE)},
      {"L2 KiB", kibibytes(_SC_LEVEL2_CACHE_SIZE)},
      {"L3 KiB", kibibytes(_SC_LEVEL3_CACHE_SIZE)},
      {"huge pages", first_line("/sys/kernel/mm/transparent_hugepage/enabled")},
      {"memory MiB", ::sysconf(_SC_PHYS_PAGES) / 1024 * ::sysconf(_SC_PAGESIZE) / 1024}};
  if (json) {
    fmt::print("{}\n", j.dump());
    return;
  }
  for (const auto& [key, value] : j.items()) {
    fmt::print("{:12} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
}

void verify_verb(const std::string& directory) {
  TESSERA_CHECK_KIND(ErrorKind::missing, fs::is_directory(directory),
                     "verify: {}: no such directory", directory);
  int checked = 0;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const fs::path parent = entry.path().parent_path();
    if (entry.path().filename() == "MANIFEST.json") {
      verify_checkpoint(parent);
    } else if (entry.path().filename() == "manifest.json") {
      for (const auto& [split, files] : read_manifest(parent).splits) {
        for (const FileEntry& file : files) {
          verify_file(parent, file, Verify::hash);
        }
      }
    } else {
      continue;
    }
    fmt::print("ok {}\n", parent.string());
    ++checked;
  }
  TESSERA_CHECK_KIND(ErrorKind::missing, checked > 0,
                     "verify: {}: holds no MANIFEST.json and no manifest.json", directory);
}

}  // namespace tessera::apps
