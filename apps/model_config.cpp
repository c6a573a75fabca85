#include "apps/model_config.h"

#include <sstream>

#include "apps/output.h"

#include "train/task_outputs.h"

namespace tessera::apps {
namespace {

TrainerConfig trainer_config(const RunConfig& c, TrainerConfig trainer) {
  trainer.decay = compat_of(c) == Compat::reference ? Decay::everything : Decay::matrices;
  return trainer;
}

std::uint64_t seed_of(const RunConfig& c, std::int64_t more = 0) {
  return static_cast<std::uint64_t>(c.run.seed + more);
}

std::vector<std::string> split_list(const std::string& list) {
  std::vector<std::string> items;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ',');) {
    items.push_back(item);
  }
  return items;
}

// The head of a task: the tau tasks always have class attention.
HeadConfig head_config(const RunConfig& c, Task task) {
  return {.kind = task == Task::tag ? parse_head(c.finetune.classifier) : HeadKind::class_attention,
          .blocks = c.finetune.head_blocks,
          .particle_blocks = task == Task::tag ? 0 : c.finetune.tau_particle_blocks,
          .dropout = c.finetune.head_dropout};
}

TaskModelConfig task_model_config(const RunConfig& c, Task task, Method method,
                                  const Dataset& data) {
  TaskModelConfig model{.task = task,
                        .method = method,
                        .backbone = backbone_config(c),
                        .gpt = gpt_config(c),
                        .tokenizer = tokenizer_config(c),
                        .head = head_config(c, task),
                        .part = parse_part_size(c.finetune.part),
                        .dropout = c.finetune.dropout,
                        .outputs = outputs_of(task, data),
                        .classes = classes_of(task, data)};
  model.backbone.dropout = model.gpt.dropout = c.finetune.dropout;
  model.slots = token_slots(c);
  return model;
}

// What both kinds of backbone have.
template <class Config>
Config with_sizes(const RunConfig& c) {
  Config config;
  config.width = c.backbone.width;
  config.blocks = c.backbone.blocks;
  config.heads = c.backbone.heads;
  config.dropout = c.backbone.dropout;
  return config;
}

}  // namespace

FeatureConfig feature_config(const RunConfig& c) {
  FeatureConfig f;
  f.contract = c.data.contract;
  f.max_constituents = static_cast<std::uint32_t>(c.data.max_particles);
  return f;
}

TokenizerConfig tokenizer_config(const RunConfig& c) {
  return {.width = c.tokenizer.width,
          .blocks = c.tokenizer.blocks,
          .heads = c.tokenizer.heads,
          .mlp_factor = c.tokenizer.mlp_factor,
          .codes = c.tokenizer.codes,
          .latent = c.tokenizer.latent,
          .causal_decoder = c.tokenizer.causal_decoder,
          .dropout = c.tokenizer.dropout,
          .alpha = c.tokenizer.alpha,
          .beta = c.tokenizer.beta,
          .nu = c.tokenizer.nu,
          .affine_lr = c.tokenizer.affine_lr,
          .distance = parse_vq_distance(c.tokenizer.distance)};
}

BackboneConfig backbone_config(const RunConfig& c) {
  auto config = with_sizes<BackboneConfig>(c);
  config.registers = c.backbone.registers;
  return config;
}

GptConfig gpt_config(const RunConfig& c) {
  auto config = with_sizes<GptConfig>(c);
  config.vocabulary = c.tokenizer.codes + 2;
  return config;
}

PretrainConfig pretrain_config(const RunConfig& c) {
  return {.codes = c.tokenizer.codes,
          .max_particles = c.data.max_particles,
          .mask_fraction = c.pretrain.mask_fraction};
}

Compat compat_of(const RunConfig& c) {
  return c.run.compat == "reference" ? Compat::reference : Compat::clean;
}

std::int64_t token_slots(const RunConfig& c) {
  return compat_of(c) == Compat::reference ? c.data.max_particles : 0;
}

bool tokens_in(const RunConfig& c) {
  const bool tokens = c.backbone.kind == "gpt";
  TESSERA_CHECK(tokens || c.data.contract == "tess-kinpid",
                "backbone.kind: tessera reads particle identities, which data.contract = '{}' has "
                "not; choose tess-kinpid or backbone.kind = 'gpt'",
                c.data.contract);
  TESSERA_CHECK(tokens || compat_of(c) == Compat::clean,
                "run.compat: reference has a model for backbone.kind = 'gpt' only, got '{}'",
                c.backbone.kind);
  return tokens;
}

UnlabelledData unlabelled_data(const RunConfig& c) {
  UnlabelledData data;
  data.features = feature_config(c);
  std::vector<std::string> directories{c.data.jets};
  if (c.data.unlabelled == "jets+taus") {
    directories.push_back(c.data.taus);
  }
  for (const std::string& directory : directories) {
    const Weights weights = parse_weights(c.data.weights);
    data.train.push_back(open_split(directory, {.split = "train", .weights = weights}));
    data.validation.push_back(open_split(directory, {.split = "val", .weights = weights}));
  }
  check_unweighted(data, "unlabelled jets (tokenizer, pre-training, generation)");
  return data;
}

UnlabelledData pretraining_data(const RunConfig& c) {
  TESSERA_CHECK(c.pretrain.classes.empty() || c.data.unlabelled == "jets",
                "pretrain.classes: a choice of classes needs data.unlabelled = 'jets', got '{}'",
                c.data.unlabelled);
  UnlabelledData data = unlabelled_data(c);
  data.classes = c.pretrain.classes;
  for (const auto* split : {&data.train, &data.validation}) {
    for (const auto& set : *split) {
      (void)unlabelled_jets(data, *set);  // a class without a jet is refused before any training
    }
  }
  return data;
}

Validation finetune_validation(const RunConfig& c) {
  return c.finetune.validation == "subset" ? Validation::subset : Validation::fixed;
}

Weights parse_weights(const std::string& text) {
  TESSERA_CHECK(text == "use" || text == "absolute" || text == "ignore",
                "weights: expected use, absolute or ignore, got '{}'", text);
  return text == "use" ? Weights::use : text == "ignore" ? Weights::ignore : Weights::absolute;
}

std::shared_ptr<const Dataset> open_split(const std::string& directory,
                                          const DatasetOptions& options) {
  auto data = std::make_shared<Dataset>(directory, options);
  if (data->weights_ignored()) {
    print_err("{}: the weights of split {} are ignored, as asked\n", directory, options.split);
  }
  return data;
}

Splits open_splits(const std::string& directory, Task task, const RunConfig& c) {
  const Weights weights = parse_weights(c.data.weights);
  DatasetOptions options{.weights = weights, .labels = task == Task::tag};
  const auto train = open_split(directory, options);
  options.classes = train->classes();
  options.classes_of = "the training split";
  const auto open = [&](const char* split, Weights w) {
    DatasetOptions other = options;
    other.split = split;
    other.weights = w;
    return open_split(directory, other);
  };
  Splits splits{train, open("val", weights),
                open("test", weights == Weights::absolute ? Weights::use : weights),
                feature_config(c)};
  splits.train->check_no_negative_weight();  // here too: before a stage is made with these settings
  splits.validation->check_no_negative_weight();
  return splits;
}

TokenizerJob tokenizer_job(const RunConfig& c) {
  return {.model = tokenizer_config(c),
          .trainer = trainer_config(c, c.tokenizer.trainer),
          .batch = c.tokenizer.batch,
          .dead_code_timeout = c.tokenizer.dead_code_timeout,
          .seed = seed_of(c),
          .compat = compat_of(c),
          .selection = c.tokenizer.selection};
}

PretrainJob pretrain_job(const RunConfig& c) {
  return {.backbone = backbone_config(c),
          .objective = pretrain_config(c),
          .trainer = trainer_config(c, c.pretrain.trainer),
          .batch = c.pretrain.batch,
          .seed = seed_of(c),
          .selection = c.pretrain.selection};
}

GptPretrainJob gpt_pretrain_job(const RunConfig& c) {
  return {.backbone = gpt_config(c),
          .trainer = trainer_config(c, c.pretrain.trainer),
          .batch = c.pretrain.batch,
          .seed = seed_of(c),
          .compat = compat_of(c),
          .selection = c.pretrain.selection};
}

std::string Study::name(std::int64_t seed) const {
  return fmt::format("{}__{}__{}{}__seed{}", task, method, strategy,
                     alone ? "" : fmt::format("-n{}", train_jets), seed);
}

std::vector<Study> studies_of(const RunConfig& c) {
  std::vector<Study> studies;
  const char* model = name(tokens_in(c) ? Method::omnijet : Method::tessera);
  const bool alone = c.finetune.train_jets.size() == 1;
  TESSERA_CHECK(!c.finetune.train_jets.empty(), "finetune.train_jets: expected a number, got none");
  for (const std::string& task : split_list(c.finetune.tasks)) {
    (void)parse_task(task);
    for (const std::int64_t jets : c.finetune.train_jets) {
      for (const std::string& method : split_list(c.finetune.methods)) {
        TESSERA_CHECK(!foundation(parse_method(method)),
                      "finetune.methods: expected deepsets, pfn or part, got '{}'", method);
        studies.push_back({task, method, "scratch", jets, alone});
      }
      for (const std::string& strategy : split_list(c.finetune.strategies)) {
        (void)parse_strategy(strategy);
        studies.push_back({task, model, strategy, jets, alone});
      }
    }
  }
  TESSERA_CHECK(
      !studies.empty(),
      "finetune: expected a task, and a method or a strategy for it, got finetune.tasks = "
      "'{}', finetune.methods = '{}', finetune.strategies = '{}'",
      c.finetune.tasks, c.finetune.methods, c.finetune.strategies);
  return studies;
}

FinetuneJob finetune_job(const RunConfig& c, const Study& study, std::int64_t seed,
                         const Dataset& data) {
  FinetuneJob job{
      .model = task_model_config(c, parse_task(study.task), parse_method(study.method), data),
      .strategy = parse_strategy(study.strategy),
      .trainer = trainer_config(c, c.finetune.trainer),
      .backbone_lr = c.finetune.backbone_lr,
      .batch = c.finetune.batch,
      .train_jets = study.train_jets,
      .validation = finetune_validation(c),
      .evaluations = c.finetune.evaluations,
      .patience = c.finetune.patience,
      .lora = {.rank = c.finetune.lora_rank, .alpha = c.finetune.lora_alpha},
      .seed = seed_of(c, seed)};
  if (job.trainer.steps == 0) {
    job.trainer.steps = step_budget(study.train_jets, job.batch);
  }
  return job;
}

}  // namespace tessera::apps
