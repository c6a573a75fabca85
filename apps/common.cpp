// What the verbs share: configuration to model sizes, progress, small files.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/command.h"

namespace tessera::apps {

FeatureConfig feature_config(const RunConfig& c) {
  FeatureConfig f;
  f.max_constituents = static_cast<std::uint32_t>(c.max_particles);
  return f;
}

UnlabelledData unlabelled_data(const RunConfig& c) {
  UnlabelledData data;
  data.features = feature_config(c);
  for (const std::string& directory : {c.jets, c.taus}) {
    data.train.push_back(std::make_shared<Dataset>(directory, DatasetOptions{}));
  }
  return data;
}

TokenizerConfig tokenizer_config(const RunConfig& c) {
  return {.width = c.tokenizer_width,
          .blocks = c.tokenizer_blocks,
          .heads = c.tokenizer_heads,
          .mlp_factor = c.tokenizer_mlp_factor,
          .codes = c.codes,
          .latent = c.latent};
}

BackboneConfig backbone_config(const RunConfig& c) {
  return {.width = c.width, .blocks = c.blocks, .heads = c.heads, .registers = c.registers};
}

void write_text(const std::string& path, const std::string& text) {
  const std::filesystem::path target(path), temporary(path + ".tmp");
  std::filesystem::create_directories(target.parent_path());
  std::ofstream out(temporary, std::ios::binary);
  out << text;
  out.close();
  TESSERA_CHECK_KIND(ErrorKind::io, out.good(), "{}: write failed", path);
  std::filesystem::rename(temporary, target);
}

Observer console_observer(const Options& options, const std::string& log_path) {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto start = std::chrono::steady_clock::now();
  std::filesystem::create_directories(std::filesystem::path(log_path).parent_path());
  auto log = std::make_shared<std::ofstream>(log_path);
  return [=](const Progress& p) {
    nlohmann::ordered_json line{{"step", p.step}};
    std::string values;
    for (const Metric& m : p.values) {
      line[m.name] = m.value;
      values += fmt::format(" {} {:.4f}", m.name, m.value);
    }
    *log << line.dump() + "\n" << std::flush;
    if (options.quiet) {
      return;
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double left =
        seconds * static_cast<double>(p.steps - p.step) / static_cast<double>(p.step);
    fmt::print(stderr, "{}{:24} {:5}/{} {} {:.0f} jets/s ETA {:.0f} s{}",
               terminal ? "\r\033[K" : "", p.job, p.step, p.steps, values, p.jets_per_second, left,
               terminal && p.step != p.steps ? "" : "\n");
  };
}

}  // namespace tessera::apps
