// The configuration of a run: one plain struct, one table of its fields.
#pragma once

#include <cstdint>
#include <string>

#include "train/config.h"

namespace tessera::apps {

/// Everything a run may set. Sizes of the presets: models.md section 8 of the design, scaled where
/// noted.
struct RunConfig {
  std::string run = "runs/quickstart";
  std::string jets = "apps/sample/jets", taus = "apps/sample/tau";
  std::int64_t seed = 1, seeds = 3, threads = 0;

  std::int64_t tokenizer_width = 32, tokenizer_blocks = 1, tokenizer_heads = 4,
               tokenizer_mlp_factor = 1;
  std::int64_t codes = 512, latent = 4, tokenizer_steps = 600, tokenizer_batch = 128;
  float tokenizer_lr = 2e-3F;

  std::int64_t width = 64, blocks = 2, heads = 4, registers = 2, max_particles = 32;
  float mask_fraction = 0.4F;
  std::int64_t pretrain_steps = 1500, pretrain_batch = 96;
  float pretrain_lr = 2e-3F;

  std::string tasks = "tau-pt,tau-id,tau-dm,tag";
  std::int64_t train_jets = 2000, finetune_steps = 200, finetune_batch = 128;
  float finetune_lr = 2e-3F, backbone_lr = 0.3F;
};

/// Every key of a run: the TOML reader, the overrides, --help and the dump all walk this table.
Schema<RunConfig> run_schema();

}  // namespace tessera::apps
