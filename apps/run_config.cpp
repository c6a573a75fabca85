#include "apps/run_config.h"

#include <algorithm>
#include <sstream>

namespace tessera::apps {
namespace {

using S = Schema<RunConfig>;
using C = RunConfig;

void add_run(S& s) {
  s.add("run.directory", [](C& c) { return &c.run.directory; },
        {.help = "Directory of everything that the run writes"});
  s.add("run.seed", [](C& c) { return &c.run.seed; },
        {.min = 0, .max = 1e9, .help = "First seed; seed k of a study is run.seed + k"});
  s.add("run.threads", [](C& c) { return &c.run.threads; },
        {.min = 0, .max = 256, .help = "Threads; 0 = all cores at hand"});
  s.add("run.checkpoint_every", [](C& c) { return &c.run.checkpoint_every; },
        {.min = 1, .max = 1e9, .help = "Optimizer steps between checkpoints"});
}

void add_data(S& s) {
  s.add("data.jets", [](C& c) { return &c.data.jets; }, {.help = "Dataset of ten-class jets"});
  s.add("data.taus", [](C& c) { return &c.data.taus; }, {.help = "Dataset of tau and quark jets"});
  s.add("data.max_particles", [](C& c) { return &c.data.max_particles; },
        {.min = 1, .max = 4096, .help = "Particles kept of a jet, by falling pT"});
}

void add_tokenizer(S& s) {
  s.add("tokenizer.width", [](C& c) { return &c.tokenizer.width; },
        {.min = 4, .max = 1024, .help = "Hidden width"});
  s.add("tokenizer.blocks", [](C& c) { return &c.tokenizer.blocks; },
        {.min = 1, .max = 32, .help = "Blocks of the encoder, and of the decoder"});
  s.add("tokenizer.heads", [](C& c) { return &c.tokenizer.heads; },
        {.min = 1, .max = 64, .help = "Attention heads"});
  s.add("tokenizer.mlp_factor", [](C& c) { return &c.tokenizer.mlp_factor; },
        {.min = 1, .max = 8, .help = "Hidden width of the MLP over the width"});
  s.add("tokenizer.codes", [](C& c) { return &c.tokenizer.codes; },
        {.min = 2, .max = 65536, .help = "Codebook size K"});
  s.add("tokenizer.latent", [](C& c) { return &c.tokenizer.latent; },
        {.min = 1, .max = 256, .help = "Width of a code"});
  s.add("tokenizer.causal_decoder", [](C& c) { return &c.tokenizer.causal_decoder; },
        {.help = "A particle is decoded from the codes before it: needed for generation"});
  s.add("tokenizer.steps", [](C& c) { return &c.tokenizer.steps; },
        {.min = 1, .max = 1e8, .help = "Optimizer steps"});
  s.add("tokenizer.batch", [](C& c) { return &c.tokenizer.batch; },
        {.min = 1, .max = 65536, .help = "Jets in a batch"});
  s.add("tokenizer.dead_code_timeout", [](C& c) { return &c.tokenizer.dead_code_timeout; },
        {.min = 1, .max = 1e6, .help = "Steps without use until a code is replaced"});
  s.add("tokenizer.lr", [](C& c) { return &c.tokenizer.lr; },
        {.min = 0, .max = 1, .help = "Peak learning rate"});
}

void add_pretraining(S& s) {
  s.add("backbone.width", [](C& c) { return &c.backbone.width; },
        {.min = 4, .max = 4096, .help = "Model width d"});
  s.add("backbone.blocks", [](C& c) { return &c.backbone.blocks; },
        {.min = 1, .max = 96, .help = "Transformer blocks"});
  s.add("backbone.heads", [](C& c) { return &c.backbone.heads; },
        {.min = 1, .max = 64, .help = "Attention heads"});
  s.add("backbone.registers", [](C& c) { return &c.backbone.registers; },
        {.min = 0, .max = 64, .help = "Learned vectors in front of each jet"});
  s.add("pretrain.mask_fraction", [](C& c) { return &c.pretrain.mask_fraction; },
        {.min = 0, .max = 1, .help = "Share of particles hidden in the masked stream"});
  s.add("pretrain.steps", [](C& c) { return &c.pretrain.steps; },
        {.min = 1, .max = 1e9, .help = "Optimizer steps"});
  s.add("pretrain.warmup", [](C& c) { return &c.pretrain.warmup; },
        {.min = 0, .max = 1e9, .help = "Steps until the peak learning rate"});
  s.add("pretrain.batch", [](C& c) { return &c.pretrain.batch; },
        {.min = 1, .max = 65536, .help = "Jets in a batch"});
  s.add("pretrain.lr", [](C& c) { return &c.pretrain.lr; },
        {.min = 0, .max = 1, .help = "Peak learning rate"});
}

void add_finetuning(S& s) {
  s.add("finetune.tasks", [](C& c) { return &c.finetune.tasks; },
        {.help = "Comma separated: tau-pt, tau-id, tau-dm, tag"});
  s.add(
      "finetune.methods", [](C& c) { return &c.finetune.methods; },
      {.help = "Individual methods beside the foundation model, comma separated: deepsets, part"});
  s.add("finetune.strategies", [](C& c) { return &c.finetune.strategies; },
        {.help = "Of the foundation model: scratch, random-frozen, frozen, lpft, delayed, full"});
  s.add("finetune.seeds", [](C& c) { return &c.finetune.seeds; },
        {.min = 1, .max = 100, .help = "Seeds of each task and strategy"});
  s.add("finetune.train_jets", [](C& c) { return &c.finetune.train_jets; },
        {.min = 10, .max = 1e9, .help = "Labelled jets of each task"});
  s.add("finetune.steps", [](C& c) { return &c.finetune.steps; },
        {.min = 1, .max = 1e9, .help = "Optimizer steps, the same for every strategy"});
  s.add("finetune.batch", [](C& c) { return &c.finetune.batch; },
        {.min = 1, .max = 65536, .help = "Jets in a batch"});
  s.add("finetune.head_blocks", [](C& c) { return &c.finetune.head_blocks; },
        {.min = 1, .max = 16, .help = "Class-attention blocks of the head"});
  s.add("finetune.evaluations", [](C& c) { return &c.finetune.evaluations; },
        {.min = 1, .max = 1e6, .help = "Evaluations of the validation loss"});
  s.add(
      "finetune.patience", [](C& c) { return &c.finetune.patience; },
      {.min = 0, .max = 1e6, .help = "Evaluations without a better one before it ends; 0 = none"});
  s.add("finetune.lr", [](C& c) { return &c.finetune.lr; },
        {.min = 0, .max = 1, .help = "Peak learning rate of heads and of models from scratch"});
  s.add("finetune.backbone_lr", [](C& c) { return &c.finetune.backbone_lr; },
        {.min = 0, .max = 10, .help = "Learning rate of a pre-trained backbone over the head's"});
}

void add_generation(S& s) {
  s.add("generate.jets", [](C& c) { return &c.generate.jets; },
        {.min = 1, .max = 1e9, .help = "Jets to draw"});
  s.add(
      "generate.slots", [](C& c) { return &c.generate.slots; },
      {.min = 1, .max = 65536, .help = "Jets in flight at once; the result does not depend on it"});
  s.add("generate.temperature", [](C& c) { return &c.generate.temperature; },
        {.min = 0, .max = 100, .help = "Logits are divided by it; 0 takes the likeliest"});
  s.add("generate.top_k", [](C& c) { return &c.generate.top_k; },
        {.min = 0, .max = 1e6, .help = "Only the k likeliest codes; 0 = all"});
  s.add("generate.top_p", [](C& c) { return &c.generate.top_p; },
        {.min = 1e-6, .max = 1, .help = "The fewest likeliest codes that reach this probability"});
}

}  // namespace

Schema<RunConfig> run_schema() {
  Schema<RunConfig> schema;
  add_run(schema);
  add_data(schema);
  add_tokenizer(schema);
  add_pretraining(schema);
  add_finetuning(schema);
  add_generation(schema);
  return schema;
}

std::string settings_of(const RunConfig& config, const std::vector<std::string>& prefixes) {
  std::istringstream dump(run_schema().dump(config));
  std::string table, result;
  for (std::string line; std::getline(dump, line);) {
    if (line.starts_with('[')) {
      table = line.substr(1, line.find(']') - 1);
    } else if (const std::string key = table + "." + line;
               !line.empty() && std::ranges::any_of(prefixes, [&](const std::string& p) {
                 return key.starts_with(p);
               })) {
      result += key + "\n";
    }
  }
  return result;
}

}  // namespace tessera::apps
