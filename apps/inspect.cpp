// tessera inspect: exact parameter counts of the published architectures. tessera doctor: the
// machine.
#include <hwy/highway.h>

#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "core/device.h"
#include "core/parallel.h"

namespace tessera::apps {
namespace {

nlohmann::ordered_json omnijet_alpha_counts() {
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

nlohmann::ordered_json tessera_counts(const std::string& preset, const TokenizerConfig& t,
                                      const BackboneConfig& b, const PretrainConfig& p) {
  Rng rng(0);
  const Tokenizer tokenizer(t, rng);
  const Backbone backbone(b, rng);
  const PretrainHead head(b.width, b.heads, p, rng);
  return {{"preset", preset},
          {"tokenizer", tokenizer.parameter_count()},
          {"backbone", backbone.parameter_count()},
          {"pretrain_total", backbone.parameter_count() + head.parameter_count()}};
}

nlohmann::ordered_json counts_of(const std::string& preset) {
  if (preset == "omnijet-alpha") {
    return omnijet_alpha_counts();
  }
  if (preset == "tiny") {
    return tessera_counts(preset, {.width = 32, .blocks = 1, .heads = 4, .codes = 512},
                          {.width = 64, .blocks = 2, .heads = 4, .registers = 2},
                          {.codes = 512, .max_particles = 32});
  }
  if (preset == "tessera-s") {
    return tessera_counts(preset,
                          {.width = 64,
                           .blocks = 3,
                           .heads = 4,
                           .mlp_factor = 2,
                           .codes = 2048,
                           .causal_decoder = true},
                          {}, {.codes = 2048, .max_particles = 128});
  }
  TESSERA_FAIL(ErrorKind::usage,
               "inspect: expected preset omnijet-alpha, tiny or tessera-s, got '{}'", preset);
}

}  // namespace

void inspect_verb(const std::string& preset, const Options& options) {
  const nlohmann::ordered_json counts = counts_of(preset);
  if (options.json) {
    fmt::print("{}\n", counts.dump());
    return;
  }
  for (const auto& [key, value] : counts.items()) {
    fmt::print("{:18} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
}

void doctor_verb(const Options&) {
  std::string list;
  for (const Device d : devices()) {
    list += fmt::format("{}{}", list.empty() ? "" : ", ", name(d.type));
  }
  fmt::print("devices  {}\nthreads  {}\nSIMD     {}\n", list, num_threads(),
             hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets()));
}

}  // namespace tessera::apps
