// The configuration of a run: one plain struct, one table of its fields.
#pragma once

#include <cstdint>
#include <string>

#include "train/config.h"

namespace tessera::apps {

/// Everything a run may set. Defaults are the preset `tiny` (models.md section 8 of the design).
struct RunConfig {
  struct {
    std::string directory = "runs/quickstart";
    std::int64_t seed = 1, threads = 0, checkpoint_every = 500;
  } run;
  struct {
    std::string jets = "apps/sample/jets", taus = "apps/sample/tau";
    std::int64_t max_particles = 32;
  } data;
  struct {
    std::int64_t width = 32, blocks = 1, heads = 4, mlp_factor = 1, codes = 512, latent = 4;
    bool causal_decoder = true;
    std::int64_t steps = 300, batch = 128, dead_code_timeout = 50;
    float lr = 2e-3F;
  } tokenizer;
  struct {
    std::int64_t width = 64, blocks = 2, heads = 4, registers = 2;
  } backbone;
  struct {
    float mask_fraction = 0.4F;
    std::int64_t steps = 300, batch = 64, warmup = 100;
    float lr = 2e-3F;
  } pretrain;
  struct {
    std::string tasks = "tau-pt,tau-id,tau-dm,tag";
    std::string methods = "deepsets,part";
    std::string strategies = "scratch,random-frozen,frozen,full";
    std::int64_t seeds = 3, train_jets = 2000, steps = 200, batch = 128, head_blocks = 1;
    std::int64_t evaluations = 8, patience = 0;
    float lr = 1e-3F, backbone_lr = 0.1F;
  } finetune;
  struct {
    std::int64_t jets = 2000, slots = 64, top_k = 0;
    float temperature = 1, top_p = 1;
  } generate;
};

/// Every key of a run: the TOML reader, the overrides, --help and the dump all walk this table.
Schema<RunConfig> run_schema();

/// The resolved lines "table.key = value" whose keys begin with one of the prefixes: what a stage
/// depends on.
std::string settings_of(const RunConfig& config, const std::vector<std::string>& prefixes);

}  // namespace tessera::apps
