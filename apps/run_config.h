// The configuration of a run: one plain struct, one table of its fields.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/best_state.h"
#include "train/config.h"
#include "train/trainer.h"

namespace tessera::apps {

/// Everything a run may set. Defaults have the sizes of the preset `tiny`.
struct RunConfig {
  struct {
    std::string directory = "runs/quickstart";
    std::string compat = "clean", on_save_fail = "stop", on_non_finite = "stop";
    std::string precision = "f32";
    std::int64_t seed = 1, threads = 0, checkpoint_every = 500, most_skipped = 20;
  } run;
  struct {
    std::string jets = "apps/sample/jets", taus = "apps/sample/tau";
    std::string contract = "tess-kinpid", unlabelled = "jets+taus", weights = "use";
    std::int64_t max_particles = 32;
  } data;
  struct {
    std::int64_t width = 32, blocks = 1, heads = 4, mlp_factor = 1, codes = 512, latent = 4;
    bool causal_decoder = true;
    float dropout = 0, alpha = 10, beta = 0.9F, nu = 1, affine_lr = 2;
    std::string distance = "f32";
    std::int64_t batch = 128, dead_code_timeout = 50;
    Selection selection;
    TrainerConfig trainer{.lr = 2e-3F, .steps = 300};
  } tokenizer;
  struct {
    std::string kind = "tessera";
    std::int64_t width = 64, blocks = 2, heads = 4, registers = 2;
    float dropout = 0;
  } backbone;
  struct {
    float mask_fraction = 0.4F;
    std::vector<std::string> classes;
    std::int64_t batch = 64;
    Selection selection;
    TrainerConfig trainer{
        .lr = 2e-3F, .weight_decay = 0.05F, .beta2 = 0.99F, .steps = 300, .warmup = 100};
  } pretrain;
  struct {
    std::string tasks = "tau-pt,tau-id,tau-dm,tag";
    std::string methods = "deepsets,part";
    std::string strategies = "scratch,random-frozen,frozen,full";
    std::int64_t seeds = 3, bootstrap_seed = 1;
    std::vector<std::int64_t> train_jets{2000};
    std::string validation = "fixed";
    std::int64_t batch = 128, evaluations = 8, patience = 0;
    std::string classifier = "class-attention";
    std::int64_t head_blocks = 1, tau_particle_blocks = 0;
    float dropout = 0, head_dropout = 0;
    std::string part = "small";
    float backbone_lr = 0.1F;
    std::vector<double> lr_grid;
    std::int64_t lora_rank = 8;
    float lora_alpha = 16;
    TrainerConfig trainer{.lr = 1e-3F, .steps = 200, .warmup = -1};
  } finetune;
  struct {
    std::int64_t jets = 2000, slots = 64, top_k = 0;
    float temperature = 1, top_p = 1;
  } generate;
};

/// Every key of a run: the TOML reader, the overrides, --help and the dump all walk this table.
Schema<RunConfig> run_schema();

/// The help of the keys that begin with one of the prefixes: what a verb reads.
std::string help_of(const std::vector<std::string>& prefixes);

/// The resolved lines "table.key = value" whose keys begin with one of the prefixes: what a stage
/// depends on. Keys that begin with one of `without` are left out, and so are the paths of
/// datasets, since data is identified by content. Keys that were added later are omitted while they
/// hold the value that older runs implied, so that old run directories still match.
std::string settings_of(const RunConfig& config, const std::vector<std::string>& prefixes,
                        const std::vector<std::string>& without = {});

/// The line of run.precision, or nothing at f32: runs from before the key existed are that.
std::string precision_setting(const RunConfig& config);

}  // namespace tessera::apps
