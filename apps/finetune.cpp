// tessera finetune: every task with the individual methods and all strategies, several seeds;
// table.csv and differences.csv at the end.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "apps/differences.h"
#include "apps/evaluation.h"
#include "apps/stages.h"
#include "apps/table.h"
#include "train/file_io.h"
#include "train/json_text.h"
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
    std::set<std::string> checked;
    for (const Study& study : studies) {
      std::optional<Splits>& splits = study.task == "tag" ? jets : taus;
      if (!splits) {
        splits =
            open_splits(study.task == "tag" ? c.data.jets : c.data.taus, parse_task(study.task), c);
      }
      if (checked.insert(study.task).second) {
        check_labels(parse_task(study.task), finetune_validation(c), *splits);
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

// The path of the training's results (losses, learning rates). They are stored beside the model, so
// that a stage that stops before its evaluation can still write it.
std::string notes_path(const Stage& stage) { return stage.directory() + "/training.json"; }

void write_notes(const Stage& stage, const Choice& choice) {
  const ordered_json j{{"train_jets", choice.result.train_jets},
                       {"validation_loss", choice.result.validation_loss},
                       {"lr", choice.lr},
                       {"lr_grid", choice.tried}};
  write_text(notes_path(stage), json_text(j));
}

// Runs of older versions have no notes: what can be is computed again, the tries of a grid are not.
Choice computed_notes(const Inputs& in, const Study& study, const Splits& data,
                      std::unique_ptr<TaskModel> model) {
  Choice choice;
  const Predictions validation = predict_labelled(*model, data.validation, data.features);
  const auto jets = std::ssize(select_jets(model->config.task, *data.train));
  choice.result = {.model = std::move(model),
                   .validation_loss = validation.loss,
                   .train_jets = std::min<std::int64_t>(study.train_jets, jets)};
  choice.lr = in.config.finetune.trainer.lr;
  return choice;
}

/// The choice of a stage that was stopped behind its training.
Choice stored_choice(const Inputs& in, const Study& study, const Stage& stage, const Splits& data) {
  auto model = load_task_model(stage.model()).model;
  model->to(in.options.device);
  const std::string path = notes_path(stage);
  try {
    const nlohmann::json j = parse_json(read_text(path), path);
    Choice choice;
    choice.result = {.model = std::move(model),
                     .validation_loss = j.at("validation_loss"),
                     .train_jets = j.at("train_jets")};
    choice.lr = j.at("lr");
    choice.tried = j.at("lr_grid");
    return choice;
  } catch (const Error&) {
  } catch (const nlohmann::json::exception&) {
  }
  warn_damaged(path);
  return computed_notes(in, study, data, std::move(model));
}

Choice trained_choice(const Inputs& in, const Study& study, std::int64_t seed, const Stage& stage,
                      const Splits& data) {
  FinetuneJob job = finetune_job(in.config, study, seed, *data.train);
  job.model.tokenizer.distance = in.distance;  // as the stored one has it, whatever the run says
  const std::string card = task_card(job.model, data.features);
  job.files = stage.files(card);
  job.device = in.options.device;
  Choice choice = best_of_grid(in, job, data);
  write_notes(stage, choice);
  stage.keep(card, *choice.result.model);
  return choice;
}

ordered_json evaluation_of(const Choice& choice, const Predictions& test, const Splits& data) {
  const TaskModel& model = *choice.result.model;
  const Task task = model.config.task;
  const auto& names = model.config.classes;  // an older model holds none
  ordered_json e = evaluation_json(task, test, names.empty() ? data.test->classes() : names);
  e["train_jets"] = choice.result.train_jets;
  e["parameters"] = model.parameter_count();
  e["validation_loss"] = choice.result.validation_loss;
  e["lr"] = choice.lr;
  e["lr_grid"] = choice.tried;
  e["validation"] =
      json_of(evaluate(task, predict_labelled(model, data.validation, data.features)));
  return e;
}

void run_study(const Inputs& in, const Study& study, std::int64_t seed) {
  const RunConfig& c = in.config;
  const std::string name = study.name(seed), stage_name = "finetune/" + name;
  const std::string report = "eval/" + name + ".json", answers = "eval/" + name + ".safetensors";
  const Stage stage(c, in.options, stage_name, settings_for(in, study, seed), task_use(study.task),
                    {model_product(stage_name), report, answers});
  if (stage.done()) {
    return;
  }
  const Splits& data = *(study.task == "tag" ? in.jets : in.taus);
  const Stopwatch watch;
  const Choice choice = stage.trained() ? stored_choice(in, study, stage, data)
                                        : trained_choice(in, study, seed, stage, data);
  const TaskModel& model = *choice.result.model;
  const Predictions test = predict_labelled(model, data.test, data.features);
  write_answers(answers_path(c, name), test);
  write_text(c.run.directory + "/" + report, json_text(evaluation_of(choice, test, data)));
  stage.finish({watch.seconds(), state_hash(model)});
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
  // Both of one call, also where several run side by side.
  const FileLock lock(c.run.directory + "/tables.lock", IfLocked::wait);
  write_tables(c, studies);
  write_differences(c, studies);
}

}  // namespace tessera::apps
