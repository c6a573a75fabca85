// tessera inspect: what a preset, a model or a dataset is. tessera doctor: what the machine is.
// tessera verify: whether files are what they were.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/output.h"
#include "apps/presets.h"
#include "apps/stages.h"
#include "core/device.h"
#include "core/parallel.h"
#include "core/simd_level.h"
#include "kernels/matmul/precision.h"
#include "train/checkpoint.h"
#include "train/file_io.h"
#include "train/file_kind.h"
#include "train/json_text.h"
#include "train/manifest.h"
#include "train/native_file.h"
#include "train/path_hints.h"
#include "train/safetensors.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

ordered_json token_counts(const RunConfig& c) {
  Rng rng(0);
  const GptPretrainModel model(gpt_config(c), rng);
  return {{"backbone", model.backbone.parameter_count()},
          {"next_token_head", model.head.parameter_count()},
          {"generative_total", model.parameter_count()}};
}

ordered_json continuous_counts(const RunConfig& c) {
  Rng rng(0);
  const PretrainModel model(backbone_config(c), pretrain_config(c), rng);
  return {{"backbone", model.backbone.parameter_count()},
          {"pretrain_total", model.parameter_count()}};
}

ordered_json counts_of(const std::string& preset) {
  RunConfig c;
  run_schema().read_text(preset_text(preset), "preset " + preset, c);
  Rng rng(0);
  const Tokenizer tokenizer(tokenizer_config(c), rng);
  ordered_json counts{{"preset", preset}, {"tokenizer", tokenizer.parameter_count()}};
  counts.update(tokens_in(c) ? token_counts(c) : continuous_counts(c));
  return counts;
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
    j["config"] = parse_json(c.config_json, (directory / "config.json").string());
  }
  if (!c.state.empty()) {
    j["state"] = c.state;
  }
  return j;
}

// Printed as it stands in the file, once the strict reader has taken it.
ordered_json describe_dataset(const fs::path& directory) {
  (void)read_manifest(directory);
  return ordered_json::parse(read_text((directory / "manifest.json").string()));
}

// A preset's name means the preset, as for -c; ./NAME is a folder of that name.
ordered_json describe(const std::string& what) {
  if (preset_text(what) != nullptr) {
    return counts_of(what);
  }
  const fs::path path(what);
  if (is_plain_file(path / "MANIFEST.json")) {
    return describe_model(path);
  }
  if (is_plain_file(path / "manifest.json")) {
    return describe_dataset(path);
  }
  std::error_code error;
  if (fs::is_directory(path, error)) {
    TESSERA_FAIL(ErrorKind::missing, "inspect: {}: as a model: {}; as a dataset: {}", what,
                 model_hint(path), dataset_hint(path));
  }
  TESSERA_CHECK_KIND(ErrorKind::missing, !fs::exists(path, error), "inspect: {}: {}", what,
                     dataset_hint(path));
  TESSERA_FAIL(ErrorKind::usage,
               "inspect: expected one of the presets {}, or a directory, got '{}', which is "
               "neither; the nearest preset is '{}'",
               preset_names(), what, nearest_preset(what));
}

// Sum of the weights and the effective number of jets, (sum w)^2 / sum w^2, of each class.
void print_weights(const ordered_json& file) {
  if (!file.contains("class_weights")) {
    return;
  }
  print_out("{:6}  weighted:", "");
  for (const auto& [name, w] : file["class_weights"].items()) {
    const auto sum = w["sum"].get<double>(), squares = w["squares"].get<double>();
    print_out(" {} sum {:.6g} effective {:.1f}", name.empty() ? "all" : name, sum,
              squares > 0 ? sum * sum / squares : 0.0);
  }
  print_out("\n");
}

void print_files(const ordered_json& splits) {
  for (const auto& [split, files] : splits.items()) {
    for (const ordered_json& file : files) {
      print_out("{:6} {:16} {:10} jets {:12} constituents, at most {} in a jet\n", split,
                file["file"].get<std::string>(), file["n"].get<std::uint64_t>(),
                file["m"].get<std::uint64_t>(), file["max_constituents"].get<std::uint64_t>());
      std::string classes;
      for (const auto& [name, count] : file["class_counts"].items()) {
        classes += fmt::format(" {} {}", name, count.get<std::uint64_t>());
      }
      print_out("{:6} {}\n", "", classes.empty() ? " no class labels" : classes);
      print_weights(file);
    }
  }
}

// A column of no finite entry has none.
std::string statistic(const ordered_json& column, const char* name) {
  return column.contains(name) ? fmt::format("{:.5g}", column[name].get<double>()) : "not defined";
}

// Over all splits; as read, before any cut. Manifests of old writers name no units.
void print_columns(const ordered_json& columns) {
  print_out("\n{:20} {:5} {:>12} {:>12} {:>12} {:>12} {:>10}\n", "column", "unit", "mean", "std",
            "min", "max", "missing");
  const auto weight = columns.find("weight");
  if (weight != columns.end() && ((*weight)["min"] != 1 || (*weight)["max"] != 1)) {
    print_out("The jets are weighted (column 'weight').\n");
  }
  for (const auto& [name, c] : columns.items()) {
    const auto unit = c["unit"].get<std::string>();
    print_out("{:20} {:5} {:>12} {:>12} {:>12} {:>12} {:10}\n", name,
              unit.empty() ? column_unit(name) : unit, statistic(c, "mean"), statistic(c, "std"),
              statistic(c, "min"), statistic(c, "max"), c["n_missing"].get<std::uint64_t>());
  }
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
    print_out("{}\n", json_text(j));
    return;
  }
  if (j.contains("splits")) {
    print_files(j["splits"]);
    print_columns(j["columns"]);
    return;
  }
  for (const auto& [key, value] : j.items()) {
    print_out("{:18} {}\n", key,
              value.is_string() ? value.get<std::string>() : json_text(value, 1));
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
      {"SIMD", simd_target()},
      {"bf16 on cpu", name(bf16_unit())},
      {"L1d KiB", kibibytes(_SC_LEVEL1_DCACHE_SIZE)},
      {"L2 KiB", kibibytes(_SC_LEVEL2_CACHE_SIZE)},
      {"L3 KiB", kibibytes(_SC_LEVEL3_CACHE_SIZE)},
      {"huge pages", first_line("/sys/kernel/mm/transparent_hugepage/enabled")},
      {"memory MiB", ::sysconf(_SC_PHYS_PAGES) / 1024 * ::sysconf(_SC_PAGESIZE) / 1024}};
  if (json) {
    print_out("{}\n", json_text(j));
    return;
  }
  for (const auto& [key, value] : j.items()) {
    print_out("{:12} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
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
    print_out("ok {}\n", parent.string());
    ++checked;
  }
  TESSERA_CHECK_KIND(ErrorKind::missing, checked > 0,
                     "verify: {}: holds no MANIFEST.json and no manifest.json", directory);
}

}  // namespace tessera::apps
