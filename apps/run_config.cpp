#include "apps/run_config.h"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <string_view>

namespace tessera::apps {
namespace {

using S = Schema<RunConfig>;
using C = RunConfig;

// The optimizer's settings, which every training has under its own table.
Schema<TrainerConfig> trainer_schema(std::int64_t fewest_steps) {
  using T = TrainerConfig;
  Schema<T> s;
  s.add("steps", [](T& t) { return &t.steps; },
        {.min = static_cast<double>(fewest_steps),
         .max = 1e9,
         .help = fewest_steps > 0
                     ? "Optimizer steps"
                     : "Optimizer steps, the same for every strategy; 0 = 50 epochs, between 500 "
                       "and 20 000"});
  s.add("lr", [](T& t) { return &t.lr; }, {.min = 0, .max = 1, .help = "Peak learning rate"});
  s.add("schedule", [](T& t) { return &t.schedule; },
        {.help = "cosine: warm-up, then a half cosine; constant: a third in the first epoch; "
                 "one_cycle_cooldown: up over 4 epochs, down over 20 and 50",
         .choices = {"cosine", "constant", "one_cycle_cooldown"}});
  s.add("warmup", [](T& t) { return &t.warmup; },
        {.min = -1, .max = 1e9, .help = "cosine: steps until the peak; -1 = a twentieth of all"});
  s.add("final_lr", [](T& t) { return &t.final_lr_fraction; },
        {.min = 0, .max = 1, .help = "cosine: last learning rate over the peak's"});
  s.add("epoch_steps", [](T& t) { return &t.epoch_steps; },
        {.min = 1, .max = 1e9, .help = "Steps of an epoch, in which the other schedules count"});
  s.add("weight_decay", [](T& t) { return &t.weight_decay; },
        {.min = 0, .max = 1, .help = "On matrices; on everything where run.compat is reference"});
  s.add("beta2", [](T& t) { return &t.beta2; },
        {.min = 0, .max = 1, .below_max = true, .help = "Decay of AdamW's second moments"});
  s.add("clip", [](T& t) { return &t.clip_norm; },
        {.min = 0, .max = 1e6, .help = "Largest gradient norm; 0 = no bound"});
  return s;
}

// Best checkpoint and early stopping, which the trainings on unlabelled jets share.
Schema<Selection> selection_schema() {
  Schema<Selection> s;
  s.add("evaluations", [](Selection& t) { return &t.evaluations; },
        {.min = 0,
         .max = 1e6,
         .help = "Evaluations of the loss on the validation jets, whose best weights are kept; 0 = "
                 "the last weights"});
  s.add(
      "patience", [](Selection& t) { return &t.patience; },
      {.min = 0, .max = 1e6, .help = "Evaluations without a better one before it ends; 0 = none"});
  return s;
}

void add_run(S& s) {
  s.add("run.directory", [](C& c) { return &c.run.directory; },
        {.help = "Directory of everything that the run writes"});
  s.add("run.seed", [](C& c) { return &c.run.seed; },
        {.min = 0, .max = 1e9, .help = "First seed; seed k of a study is run.seed + k"});
  s.add("run.threads", [](C& c) { return &c.run.threads; },
        {.min = 0, .max = 256, .help = "Threads; 0 = all cores at hand"});
  s.add("run.compat", [](C& c) { return &c.run.compat; },
        {.help = "reference: losses, weight decay and codebook as the published code has them, so "
                 "that curves compare; both losses are logged",
         .choices = {"clean", "reference"}});
  s.add("run.precision", [](C& c) { return &c.run.precision; },
        {.help = "Of matrix products: f32, or operands rounded to bf16 with sums in f32; all else, "
                 "and codes of a trained tokenizer, are f32 in either case. On cpu bf16 needs "
                 "AVX512-BF16 (doctor tells)",
         .choices = {"f32", "bf16"}});
  s.add("run.checkpoint_every", [](C& c) { return &c.run.checkpoint_every; },
        {.min = 1, .max = 1e9, .help = "Optimizer steps between checkpoints"});
  s.add("run.on_save_fail", [](C& c) { return &c.run.on_save_fail; },
        {.help = "stop, or warn and go on, when the disk refuses a checkpoint on the way"});
  s.add("run.on_non_finite", [](C& c) { return &c.run.on_non_finite; },
        {.help = "A step with a loss or gradient that is not finite: stop, or skip it, unless it "
                 "is the third in a row",
         .choices = {"stop", "skip"}});
  s.add("run.most_skipped", [](C& c) { return &c.run.most_skipped; },
        {.min = 1, .max = 1e9, .help = "Steps that a training may skip in all"});
}

void add_data(S& s) {
  s.add("data.jets", [](C& c) { return &c.data.jets; }, {.help = "Dataset of ten-class jets"});
  s.add("data.taus", [](C& c) { return &c.data.taus; }, {.help = "Dataset of tau and quark jets"});
  s.add("data.contract", [](C& c) { return &c.data.contract; },
        {.help = "Inputs: kinematics alone, or with particle identity and context",
         .choices = {"alpha3", "tess-kinpid"}});
  s.add("data.unlabelled", [](C& c) { return &c.data.unlabelled; },
        {.help = "What tokenizer and backbone are trained on", .choices = {"jets", "jets+taus"}});
  s.add("data.weights", [](C& c) { return &c.data.weights; },
        {.help = "Column 'weight' in fine-tuning and its metrics: use; absolute: in training and "
                 "validation, where a negative one is refused else; ignore. Tokenizer, "
                 "pre-training and generation take no weighted jets but with ignore",
         .choices = {"use", "absolute", "ignore"}});
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
  s.add("tokenizer.batch", [](C& c) { return &c.tokenizer.batch; },
        {.min = 1, .max = 65536, .help = "Jets in a batch"});
  s.add("tokenizer.dead_code_timeout", [](C& c) { return &c.tokenizer.dead_code_timeout; },
        {.min = 1, .max = 1e6, .help = "Steps without use until a code is replaced"});
  s.add("tokenizer.dropout", [](C& c) { return &c.tokenizer.dropout; },
        {.min = 0, .max = 0.99, .help = "Of every block, while training"});
  s.add("tokenizer.alpha", [](C& c) { return &c.tokenizer.alpha; },
        {.min = 0, .max = 1e4, .help = "Weight of the quantiser's loss"});
  s.add("tokenizer.beta", [](C& c) { return &c.tokenizer.beta; },
        {.min = 0, .max = 1, .help = "Share of the codebook's term in it"});
  s.add("tokenizer.nu", [](C& c) { return &c.tokenizer.nu; },
        {.min = 0, .max = 1, .help = "Synchronised straight-through; 0 = the plain one"});
  s.add("tokenizer.affine_lr", [](C& c) { return &c.tokenizer.affine_lr; },
        {.min = 0, .max = 100, .help = "Factor on the codebook's affine parameters"});
  s.add("tokenizer.distance", [](C& c) { return &c.tokenizer.distance; },
        {.help = "By which codes are chosen; f16: rounded to half as published code has it on "
                 "GPUs, to reproduce its ids; device cpu alone",
         .choices = {"f32", "f16"}});
  s.add_table(
      "tokenizer", [](C& c) { return &c.tokenizer.trainer; }, trainer_schema(1));
  s.add_table(
      "tokenizer", [](C& c) { return &c.tokenizer.selection; }, selection_schema());
}

void add_pretraining(S& s) {
  s.add("backbone.kind", [](C& c) { return &c.backbone.kind; },
        {.help = "tessera: particles in, next token and masked particles; gpt: OmniJet-alpha's, "
                 "tokens in, next token",
         .choices = {"tessera", "gpt"}});
  s.add("backbone.width", [](C& c) { return &c.backbone.width; },
        {.min = 4, .max = 4096, .help = "Model width d"});
  s.add("backbone.blocks", [](C& c) { return &c.backbone.blocks; },
        {.min = 1, .max = 96, .help = "Transformer blocks"});
  s.add("backbone.heads", [](C& c) { return &c.backbone.heads; },
        {.min = 1, .max = 64, .help = "Attention heads"});
  s.add("backbone.registers", [](C& c) { return &c.backbone.registers; },
        {.min = 0, .max = 64, .help = "Learned vectors in front of each jet; kind tessera"});
  s.add("backbone.dropout", [](C& c) { return &c.backbone.dropout; },
        {.min = 0, .max = 0.99, .help = "Of every block, while pre-training"});
  s.add("pretrain.mask_fraction", [](C& c) { return &c.pretrain.mask_fraction; },
        {.min = 0, .max = 1, .help = "Share of particles hidden in the masked stream"});
  s.add("pretrain.classes", [](C& c) { return &c.pretrain.classes; },
        {.help = "Classes of data.jets to pre-train on; [] = all"});
  s.add("pretrain.batch", [](C& c) { return &c.pretrain.batch; },
        {.min = 1, .max = 65536, .help = "Jets in a batch"});
  s.add_table(
      "pretrain", [](C& c) { return &c.pretrain.trainer; }, trainer_schema(1));
  s.add_table(
      "pretrain", [](C& c) { return &c.pretrain.selection; }, selection_schema());
}

void add_studies(S& s) {
  s.add("finetune.tasks", [](C& c) { return &c.finetune.tasks; },
        {.help = "Comma separated: tau-pt, tau-id, tau-dm, tag"});
  s.add("finetune.methods", [](C& c) { return &c.finetune.methods; },
        {.help = "Individual methods beside the foundation model, comma separated: deepsets, pfn, "
                 "part"});
  s.add("finetune.strategies", [](C& c) { return &c.finetune.strategies; },
        {.help = "Of the foundation model: scratch, random-frozen, frozen, lpft, delayed, full, "
                 "lora"});
  s.add("finetune.seeds", [](C& c) { return &c.finetune.seeds; },
        {.min = 1, .max = 100, .help = "Seeds of each task and strategy"});
  s.add("finetune.bootstrap_seed", [](C& c) { return &c.finetune.bootstrap_seed; },
        {.min = 0, .max = 1e9, .help = "Draws the replicas of the test jets for differences.csv"});
  s.add("finetune.train_jets", [](C& c) { return &c.finetune.train_jets; },
        {.min = 10,
         .max = 1e9,
         .help = "Labelled jets of each task; several numbers are nested subsets, a row each, and "
                 "give label_multiplier.csv"});
  s.add("finetune.validation", [](C& c) { return &c.finetune.validation; },
        {.help = "fixed: the whole validation split; subset: a fifth of train_jets, at least 50",
         .choices = {"fixed", "subset"}});
  s.add("finetune.lr_grid", [](C& c) { return &c.finetune.lr_grid; },
        {.min = 0,
         .max = 1,
         .help = "Learning rates that every study tries, the best by validation loss kept; [] = "
                 "finetune.lr alone"});
  s.add("finetune.evaluations", [](C& c) { return &c.finetune.evaluations; },
        {.min = 1, .max = 1e6, .help = "Evaluations of the validation loss"});
  s.add(
      "finetune.patience", [](C& c) { return &c.finetune.patience; },
      {.min = 0, .max = 1e6, .help = "Evaluations without a better one before it ends; 0 = none"});
}

void add_finetuning(S& s) {
  s.add("finetune.batch", [](C& c) { return &c.finetune.batch; },
        {.min = 1, .max = 65536, .help = "Jets in a batch"});
  s.add_table(
      "finetune", [](C& c) { return &c.finetune.trainer; }, trainer_schema(0));
  s.add("finetune.backbone_lr", [](C& c) { return &c.finetune.backbone_lr; },
        {.min = 0, .max = 10, .help = "Learning rate of a pre-trained backbone over the head's"});
  s.add("finetune.dropout", [](C& c) { return &c.finetune.dropout; },
        {.min = 0, .max = 0.99, .help = "Of the backbone, and of individual methods"});
  s.add("finetune.classifier", [](C& c) { return &c.finetune.classifier; },
        {.help = "Head of the task tag; -ref: as published, quirks included",
         .choices = {"class-attention", "sum", "class-attention-ref"}});
  s.add("finetune.head_blocks", [](C& c) { return &c.finetune.head_blocks; },
        {.min = 1, .max = 16, .help = "Class-attention blocks of the head"});
  s.add("finetune.tau_particle_blocks", [](C& c) { return &c.finetune.tau_particle_blocks; },
        {.min = 0, .max = 16, .help = "Blocks over particles in front of them, in the tau tasks"});
  s.add(
      "finetune.head_dropout", [](C& c) { return &c.finetune.head_dropout; },
      {.min = 0, .max = 0.99, .help = "Of the blocks over particles, and of class-attention-ref"});
  s.add("finetune.part", [](C& c) { return &c.finetune.part; },
        {.help = "Size of the method part: 2 + 1 blocks of width 64; the tau reference's 2 + 2 of "
                 "256; JetClass's 8 + 2 of 128",
         .choices = {"small", "tau", "jet-class"}});
  s.add("finetune.lora_rank", [](C& c) { return &c.finetune.lora_rank; },
        {.min = 1, .max = 1024, .help = "Rank of the adapters of strategy lora"});
  s.add("finetune.lora_alpha", [](C& c) { return &c.finetune.lora_alpha; },
        {.min = 0, .max = 1e4, .help = "Their product is scaled by it over the rank"});
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

// Keys that came after the first runs, at the value that these had: no setting to them.
constexpr std::string_view kYounger[] = {"run.precision = \"f32\"", "tokenizer.distance = \"f32\"",
                                         "data.weights = \"use\""};

// Where datasets are is no setting: what they hold is (data_settings()).
constexpr std::string_view kPaths[] = {"data.jets =", "data.taus ="};

}  // namespace

Schema<RunConfig> run_schema() {
  Schema<RunConfig> schema;
  add_run(schema);
  add_data(schema);
  add_tokenizer(schema);
  add_pretraining(schema);
  add_studies(schema);
  add_finetuning(schema);
  add_generation(schema);
  return schema;
}

std::string help_of(const std::vector<std::string>& prefixes) {
  std::istringstream all(run_schema().help());
  std::string result, key, sentence;
  while (std::getline(all, key) && std::getline(all, sentence)) {  // two lines a key
    const auto begins = [&](const std::string& prefix) { return key.starts_with("  " + prefix); };
    if (std::ranges::any_of(prefixes, begins)) {
      result += key + "\n" + sentence + "\n";
    }
  }
  return result;
}

std::string settings_of(const RunConfig& config, const std::vector<std::string>& prefixes,
                        const std::vector<std::string>& without) {
  std::istringstream dump(run_schema().dump(config));
  std::string table, result;
  for (std::string line; std::getline(dump, line);) {
    const std::string key = table + "." + line;
    const auto begins = [&](std::string_view prefix) { return key.starts_with(prefix); };
    if (line.starts_with('[')) {
      table = line.substr(1, line.find(']') - 1);
    } else if (!line.empty() && std::ranges::any_of(prefixes, begins) &&
               std::ranges::none_of(without, begins) && std::ranges::none_of(kPaths, begins) &&
               std::ranges::find(kYounger, key) == std::end(kYounger)) {
      result += key + "\n";
    }
  }
  return result;
}

std::string precision_setting(const RunConfig& config) {
  return settings_of(config, {"run.precision"});
}

}  // namespace tessera::apps
