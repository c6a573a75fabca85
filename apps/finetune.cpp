// tessera finetune: every task with the individual methods and all strategies, several seeds;
// table.csv at the end.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/evaluation.h"
#include "apps/run_record.h"
#include "apps/stages.h"
#include "apps/table.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

Splits open_splits(const std::string& directory, const FeatureConfig& features) {
  const auto open = [&](const char* split) {
    return std::make_shared<Dataset>(directory, DatasetOptions{.split = split});
  };
  return {open("train"), open("val"), open("test"), features};
}

std::vector<std::string> split_list(const std::string& list) {
  std::vector<std::string> items;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ',');) {
    items.push_back(item);
  }
  return items;
}

/// Task by task: the individual methods, then the strategies of the foundation model.
std::vector<Study> studies_of(const RunConfig& c) {
  std::vector<Study> studies;
  for (const std::string& task : split_list(c.finetune.tasks)) {
    (void)parse_task(task);
    for (const std::string& method : split_list(c.finetune.methods)) {
      (void)parse_method(method);
      studies.push_back({task, method, "scratch"});
    }
    for (const std::string& strategy : split_list(c.finetune.strategies)) {
      (void)parse_strategy(strategy);
      studies.push_back({task, "tessera", strategy});
    }
  }
  return studies;
}

/// What all studies share.
struct Inputs {
  const RunConfig& config;
  const Options& options;
  Splits jets, taus;
  std::vector<NamedTensor> backbone;
  std::string backbone_hash;

  Inputs(const RunConfig& c, const Options& o)
      : config(c),
        options(o),
        jets(open_splits(c.data.jets, feature_config(c))),
        taus(open_splits(c.data.taus, feature_config(c))) {
    const std::string from = o.from.empty() ? c.run.directory : o.from;
    const auto stored = load_pretrained(from + "/pretrain/model");
    check_contract(stored.features, jets.features, "finetune: the backbone");
    backbone = state(stored.model->backbone);
    backbone_hash = state_hash(stored.model->backbone);
  }
};

FinetuneJob job_of(const RunConfig& c, const Study& study, std::int64_t seed, const Dataset& data) {
  const Task task = parse_task(study.task);
  return {
      .model = {.task = task,
                .method = parse_method(study.method),
                .backbone = backbone_config(c),
                .head_blocks = c.finetune.head_blocks,
                .outputs = outputs_of(task, data)},
      .strategy = parse_strategy(study.strategy),
      .trainer = {.lr = c.finetune.lr, .steps = c.finetune.steps, .warmup = c.finetune.steps / 20},
      .backbone_lr = c.finetune.backbone_lr,
      .batch = c.finetune.batch,
      .train_jets = c.finetune.train_jets,
      .evaluations = c.finetune.evaluations,
      .patience = c.finetune.patience,
      .seed = static_cast<std::uint64_t>(c.run.seed + seed)};
}

// What one study's result depends on; not on which other studies are run beside it.
std::string settings_for(const Inputs& in, const Study& study, std::int64_t seed) {
  const std::string common =
      settings_of(in.config, {"data.", "backbone.", "finetune.train_jets", "finetune.steps",
                              "finetune.batch", "finetune.head_blocks", "finetune.evaluations",
                              "finetune.patience", "finetune.lr", "finetune.backbone_lr"}) +
      fmt::format("seed {}\n", in.config.run.seed + seed);
  return pretrained(parse_strategy(study.strategy)) ? common + "backbone " + in.backbone_hash + "\n"
                                                    : common;
}

void run_study(const Inputs& in, const Study& study, std::int64_t seed) {
  const RunConfig& c = in.config;
  const std::string name = study.name(seed);
  const Stage stage(c, in.options, "finetune/" + name, settings_for(in, study, seed));
  if (stage.done()) {
    return;
  }
  const Splits& data = study.task == "tag" ? in.jets : in.taus;
  FinetuneJob job = job_of(c, study, seed, *data.train);
  const std::string card = task_card(job.model, data.features);
  job.files = stage.files(card);
  const Stopwatch watch;
  const FinetuneResult r = finetune(job, data, in.backbone, console_observer(in.options));
  auto evaluation =
      evaluation_json(job.model.task, predict(*r.model, data.test, data.features), *data.test);
  evaluation["train_jets"] = r.train_jets;
  evaluation["parameters"] = r.model->parameter_count();
  evaluation["validation_loss"] = r.validation_loss;
  for (const Metric& m :
       evaluate(job.model.task, predict(*r.model, data.validation, data.features))) {
    evaluation["validation"][m.name] = m.value;
  }
  write_text(c.run.directory + "/eval/" + name + ".json", evaluation.dump());
  stage.finish(card, *r.model);
  record_stage(c, name, watch.seconds(), state_hash(*r.model));
}

}  // namespace

void finetune_verb(const RunConfig& c, const Options& options) {
  const std::vector<Study> studies = studies_of(c);
  const Inputs inputs(c, options);
  for (std::int64_t seed = 0; seed < c.finetune.seeds; ++seed) {
    for (const Study& study : studies) {
      run_study(inputs, study, seed);
    }
  }
  write_table(c, studies);
}

}  // namespace tessera::apps
