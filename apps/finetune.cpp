// tessera finetune: every task with the individual methods and all strategies, several seeds;
// table.csv and differences.csv at the end.
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/differences.h"
#include "apps/evaluation.h"
#include "apps/run_record.h"
#include "apps/stages.h"
#include "apps/table.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

/// What all studies share. A dataset that no task asks for is not opened, so it need not exist.
struct Inputs {
  const RunConfig& config;
  const Options& options;
  FeatureConfig features;
  std::optional<Splits> jets, taus;
  Foundation foundation;
  std::string backbone_hash;
  std::string tokens;  // these two for a backbone of tokens only
  VqDistance distance = VqDistance::f32;

  Inputs(const RunConfig& c, const Options& o, const std::vector<Study>& studies)
      : config(c), options(o), features(feature_config(c)) {
    for (const Study& study : studies) {
      std::optional<Splits>& splits = study.task == "tag" ? jets : taus;
      if (!splits) {
        splits =
            open_splits(study.task == "tag" ? c.data.jets : c.data.taus, parse_task(study.task), c);
      }
    }
    const std::string from = o.from.empty() ? c.run.directory : o.from;
    if (tokens_in(c)) {
      take(load_gpt_pretrained(from + "/pretrain/model"));
      const auto tokenizer = load_tokenizer(from + "/tokenizer/model");
      check_contract(tokenizer.features, features, "finetune: the tokenizer");
      foundation.tokenizer = state(*tokenizer.model);
      tokens = tokenizer_hash(*tokenizer.model);
      distance = tokenizer.model->config.distance;
    } else {
      take(load_pretrained(from + "/pretrain/model"));
    }
  }

  [[nodiscard]] const Splits& splits_of(const Study& study) const {
    return *(study.task == "tag" ? jets : taus);
  }

 private:
  void take(const auto& stored) {
    check_contract(stored.features, features, "finetune: the backbone");
    foundation.backbone = state(stored.model->backbone);
    backbone_hash = state_hash(stored.model->backbone);
  }
};

// What one study's result depends on; not on which other studies are run beside it.
std::string settings_for(const Inputs& in, const Study& study, std::int64_t seed) {
  std::string settings =
      settings_of(in.config, {"data.", "backbone.", "finetune.", "run.compat"},
                  {"finetune.tasks", "finetune.methods", "finetune.strategies", "finetune.seeds",
                   "finetune.train_jets", "finetune.bootstrap_seed"});
  settings += precision_setting(in.config);
  settings += fmt::format("jets {}\nseed {}\n", study.train_jets, in.config.run.seed + seed);
  if (in.splits_of(study).weighted()) {  // older runs passed over weights
    settings += "weights used\n";
  }
  if (pretrained(parse_strategy(study.strategy))) {
    settings += "backbone " + in.backbone_hash + "\n";
  }
  if (parse_method(study.method) == Method::omnijet) {
    settings += "tokenizer " + in.tokens + "\n";
  }
  return settings;
}

/// The result of the learning rate with the lowest validation loss, and what each gave.
struct Choice {
  FinetuneResult result;
  float lr = 0;
  ordered_json tried = ordered_json::array();
};

Choice best_of_grid(const Inputs& in, FinetuneJob job, const Splits& data) {
  const std::vector<double>& grid = in.config.finetune.lr_grid;
  const RunFiles files = job.files;
  Choice choice;
  const auto offer = [&](float lr) {
    job.trainer.lr = lr;
    FinetuneResult result = finetune(job, data, in.foundation, console_observer(in.options));
    choice.tried.push_back({{"lr", lr}, {"validation_loss", result.validation_loss}});
    if (!choice.result.model || result.validation_loss < choice.result.validation_loss) {
      choice.result = std::move(result);
      choice.lr = lr;
    }
  };
  if (grid.empty()) {
    offer(job.trainer.lr);
  }
  for (const double lr : grid) {
    job.files.directory = files.directory / fmt::format("lr-{}", lr);
    offer(static_cast<float>(lr));
  }
  return choice;
}

ordered_json evaluation_of(const Choice& choice, const Predictions& test, const Splits& data) {
  const TaskModel& model = *choice.result.model;
  const Task task = model.config.task;
  ordered_json e = evaluation_json(task, test, model.config.classes);
  e["train_jets"] = choice.result.train_jets;
  e["parameters"] = model.parameter_count();
  e["validation_loss"] = choice.result.validation_loss;
  e["lr"] = choice.lr;
  e["lr_grid"] = choice.tried;
  for (const Metric& m : evaluate(task, predict_labelled(model, data.validation, data.features))) {
    e["validation"][m.name] = m.value;
  }
  return e;
}

void run_study(const Inputs& in, const Study& study, std::int64_t seed) {
  const RunConfig& c = in.config;
  const std::string name = study.name(seed);
  const Stage stage(c, in.options, "finetune/" + name, settings_for(in, study, seed));
  const Splits& data = in.splits_of(study);
  const std::string answers = answers_path(c, name);
  if (stage.done()) {
    if (!std::filesystem::exists(answers)) {  // of a run that an older version made
      write_answers(answers, predict_labelled(*load_task_model(stage.model()).model, data.test,
                                              data.features));
    }
    return;
  }
  FinetuneJob job = finetune_job(c, study, seed, *data.train);
  job.model.tokenizer.distance = in.distance;  // as the stored one has it, whatever the run says
  const std::string card = task_card(job.model, data.features);
  job.files = stage.files(card);
  job.device = in.options.device;
  const Stopwatch watch;
  const Choice choice = best_of_grid(in, job, data);
  const Predictions test = predict_labelled(*choice.result.model, data.test, data.features);
  write_answers(answers, test);
  write_text(c.run.directory + "/eval/" + name + ".json", evaluation_of(choice, test, data).dump());
  stage.finish(card, *choice.result.model);
  record_stage(c, name, watch.seconds(), state_hash(*choice.result.model));
}

}  // namespace

void finetune_verb(const RunConfig& c, const Options& options) {
  const std::vector<Study> studies = studies_of(c);
  const Inputs inputs(c, options, studies);
  for (std::int64_t seed = 0; seed < c.finetune.seeds; ++seed) {
    for (const Study& study : studies) {
      run_study(inputs, study, seed);
    }
  }
  write_tables(c, studies);
  write_differences(c, studies);
}

}  // namespace tessera::apps
