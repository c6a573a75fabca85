#include "apps/run_config.h"

namespace tessera::apps {

Schema<RunConfig> run_schema() {
  Schema<RunConfig> schema;
  schema.add("run.directory", [](RunConfig& c) { return &c.run; },
             {.help = "Directory of everything that the run writes"});
  schema.add("run.seed", [](RunConfig& c) { return &c.seed; },
             {.min = 0, .max = 1e9, .help = "First seed; seed k of a study is run.seed + k"});
  schema.add("run.threads", [](RunConfig& c) { return &c.threads; },
             {.min = 0, .max = 256, .help = "Threads; 0 = all cores at hand"});
  schema.add("data.jets", [](RunConfig& c) { return &c.jets; },
             {.help = "Dataset of ten-class jets"});
  schema.add("data.taus", [](RunConfig& c) { return &c.taus; },
             {.help = "Dataset of tau and quark jets"});
  schema.add("tokenizer.width", [](RunConfig& c) { return &c.tokenizer_width; },
             {.min = 4, .max = 1024, .help = "Hidden width"});
  schema.add("tokenizer.blocks", [](RunConfig& c) { return &c.tokenizer_blocks; },
             {.min = 1, .max = 32, .help = "Blocks of the encoder, and of the decoder"});
  schema.add("tokenizer.heads", [](RunConfig& c) { return &c.tokenizer_heads; },
             {.min = 1, .max = 64, .help = "Attention heads"});
  schema.add("tokenizer.mlp_factor", [](RunConfig& c) { return &c.tokenizer_mlp_factor; },
             {.min = 1, .max = 8, .help = "Hidden width of the MLP over the width"});
  schema.add("tokenizer.codes", [](RunConfig& c) { return &c.codes; },
             {.min = 2, .max = 65536, .help = "Codebook size K"});
  schema.add("tokenizer.latent", [](RunConfig& c) { return &c.latent; },
             {.min = 1, .max = 256, .help = "Width of a code"});
  schema.add("tokenizer.steps", [](RunConfig& c) { return &c.tokenizer_steps; },
             {.min = 1, .max = 1e8, .help = "Optimizer steps"});
  schema.add("tokenizer.batch", [](RunConfig& c) { return &c.tokenizer_batch; },
             {.min = 1, .max = 65536, .help = "Jets in a batch"});
  schema.add("tokenizer.lr", [](RunConfig& c) { return &c.tokenizer_lr; },
             {.min = 0, .max = 1, .help = "Peak learning rate"});
  schema.add("backbone.width", [](RunConfig& c) { return &c.width; },
             {.min = 4, .max = 4096, .help = "Model width d"});
  schema.add("backbone.blocks", [](RunConfig& c) { return &c.blocks; },
             {.min = 1, .max = 96, .help = "Transformer blocks"});
  schema.add("backbone.heads", [](RunConfig& c) { return &c.heads; },
             {.min = 1, .max = 64, .help = "Attention heads"});
  schema.add("backbone.registers", [](RunConfig& c) { return &c.registers; },
             {.min = 0, .max = 64, .help = "Learned vectors in front of each jet"});
  schema.add("pretrain.max_particles", [](RunConfig& c) { return &c.max_particles; },
             {.min = 1, .max = 4096, .help = "Particles kept of a jet, by falling pT"});
  schema.add("pretrain.mask_fraction", [](RunConfig& c) { return &c.mask_fraction; },
             {.min = 0, .max = 1, .help = "Share of particles hidden in the masked stream"});
  schema.add("pretrain.steps", [](RunConfig& c) { return &c.pretrain_steps; },
             {.min = 1, .max = 1e9, .help = "Optimizer steps"});
  schema.add("pretrain.batch", [](RunConfig& c) { return &c.pretrain_batch; },
             {.min = 1, .max = 65536, .help = "Jets in a batch"});
  schema.add("pretrain.lr", [](RunConfig& c) { return &c.pretrain_lr; },
             {.min = 0, .max = 1, .help = "Peak learning rate"});
  schema.add("finetune.tasks", [](RunConfig& c) { return &c.tasks; },
             {.help = "Tasks, comma separated: tau-pt, tau-id, tau-dm, tag"});
  schema.add("finetune.seeds", [](RunConfig& c) { return &c.seeds; },
             {.min = 1, .max = 100, .help = "Seeds of each task and strategy"});
  schema.add("finetune.train_jets", [](RunConfig& c) { return &c.train_jets; },
             {.min = 10, .max = 1e9, .help = "Labelled jets of each task"});
  schema.add("finetune.steps", [](RunConfig& c) { return &c.finetune_steps; },
             {.min = 1, .max = 1e9, .help = "Optimizer steps, the same for every strategy"});
  schema.add("finetune.batch", [](RunConfig& c) { return &c.finetune_batch; },
             {.min = 1, .max = 65536, .help = "Jets in a batch"});
  schema.add(
      "finetune.lr", [](RunConfig& c) { return &c.finetune_lr; },
      {.min = 0, .max = 1, .help = "Peak learning rate of heads and of models from scratch"});
  schema.add(
      "finetune.backbone_lr", [](RunConfig& c) { return &c.backbone_lr; },
      {.min = 0, .max = 10, .help = "Learning rate of a pre-trained backbone over the head's"});
  return schema;
}

}  // namespace tessera::apps
