// tessera pretrain: the backbone, on unlabelled jets and their tokens.
#include <nlohmann/json.hpp>

#include <fstream>

#include "apps/command.h"
#include "apps/store.h"

namespace tessera::apps {

void pretrain_verb(const RunConfig& c, const Options& options) {
  const std::string model_path = c.run + "/backbone.safetensors";
  if (options.dry_run) {
    fmt::print("{}", run_schema().dump(c));
    return;
  }
  if (is_done(model_path)) {
    fmt::print(stderr, "pretrain: done before, kept ({})\n", model_path);
    return;
  }
  Rng rng(0);
  Tokenizer tokenizer(tokenizer_config(c), rng);
  load(tokenizer, load_state(c.run + "/tokenizer.safetensors"));
  tokenizer.freeze();
  const PretrainJob job{.backbone = backbone_config(c),
                        .objective = {.codes = c.codes,
                                      .max_particles = c.max_particles,
                                      .mask_fraction = c.mask_fraction},
                        .trainer = {.lr = c.pretrain_lr,
                                    .weight_decay = 0.05F,
                                    .beta2 = 0.99F,
                                    .steps = c.pretrain_steps,
                                    .warmup = 100},
                        .batch = c.pretrain_batch,
                        .seed = static_cast<std::uint64_t>(c.seed)};
  const PretrainResult r = pretrain(job, tokenizer, unlabelled_data(c),
                                    console_observer(options, c.run + "/curves/pretrain.jsonl"));
  const auto tokens = nlohmann::json::parse(std::ifstream(c.run + "/eval/tokenizer.json"));
  const double entropy = tokens.at("token_entropy");
  write_text(
      c.run + "/eval/pretrain.json",
      nlohmann::ordered_json{{"ntp", r.ntp}, {"mpm", r.mpm}, {"token_entropy", entropy}}.dump());
  save_state(model_path, state(*r.backbone));
  fmt::print(
      "pretrain: next token {:.3f} nat, masked particle {:.3f} nat, unigram entropy {:.3f} nat: "
      "margin {:.3f}\n",
      r.ntp, r.mpm, entropy, entropy - r.ntp);
}

}  // namespace tessera::apps
