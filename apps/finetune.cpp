// tessera finetune: every task with the individual methods and all strategies, several seeds;
// table.csv and differences.csv at the end.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "apps/differences.h"
#include "apps/evaluation.h"
#include "apps/run_record.h"
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
        splits = open_splits(study.task == "tag" ? c.data.jets : c.data.taus,
                             parse_task(study.task), features);
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

/// The files of one study and seed. The model is stored first, with what its training found beside
/// it; answers and evaluation are made from what is stored, so that they can be made again at any
/// time.
struct StudyFiles {
  std::string model, training, answers, evaluation;
  StudyFiles(const RunConfig& c, const Stage& stage, const std::string& name)
      : model(stage.model()),
        training(stage.directory() + "/training.json"),
        answers(answers_path(c, name)),
        evaluation(c.run.directory + "/eval/" + name + ".json") {}
};

/// What a training found beside the weights.
ordered_json found_by(const Choice& choice) {
  return {{"train_jets", choice.result.train_jets},
          {"validation_loss", choice.result.validation_loss},
          {"lr", choice.lr},
          {"lr_grid", choice.tried}};
}

/// The same of a stored model; one of an older version has its number of labels alone.
ordered_json found_by_stored(const StudyFiles& files, const Study& study, const Splits& data) {
  if (std::filesystem::exists(files.training)) {
    return ordered_json::parse(read_text(files.training));
  }
  const auto all = select_jets(parse_task(study.task), *data.train);
  return {{"train_jets", std::min<std::int64_t>(study.train_jets, std::ssize(all))}};
}

ordered_json evaluation_of(const TaskModel& model, const ordered_json& training,
                           const Predictions& test, const Splits& data) {
  const Task task = model.config.task;
  const auto& names = model.config.classes;  // an older model holds none
  ordered_json e = evaluation_json(task, test, names.empty() ? data.test->classes() : names);
  e["parameters"] = model.parameter_count();
  e.update(training);
  e["validation"] =
      json_of(evaluate(task, predict_labelled(model, data.validation, data.features)));
  return e;
}

/// Makes the answers of the stored model, and its evaluation where there is none; returns the hash
/// of its weights.
std::string evaluate_stored(const Inputs& in, const StudyFiles& files, const Study& study,
                            const Splits& data) {
  const auto stored = load_task_model(files.model);
  stored.model->to(in.options.device);
  const Predictions test = predict_labelled(*stored.model, data.test, data.features);
  write_answers(files.answers, test);
  if (!std::filesystem::exists(files.evaluation)) {
    const ordered_json found = found_by_stored(files, study, data);
    write_text(files.evaluation, json_text(evaluation_of(*stored.model, found, test, data)));
  }
  return state_hash(*stored.model);
}

/// Trains and stores the model. Answers of a model that was here before are of other weights.
void train_study(const Inputs& in, const StudyFiles& files, const Stage& stage, const Study& study,
                 std::int64_t seed, const Splits& data) {
  FinetuneJob job = finetune_job(in.config, study, seed, *data.train);
  job.model.tokenizer.distance = in.distance;  // as the stored one has it, whatever the run says
  const std::string card = task_card(job.model, data.features);
  job.files = stage.files(card);
  job.device = in.options.device;
  const Choice choice = best_of_grid(in, job, data);
  std::filesystem::remove(files.evaluation);
  std::filesystem::remove(files.answers);
  write_text(files.training, json_text(found_by(choice)));
  stage.finish(card, *choice.result.model);
}

void run_study(const Inputs& in, const Study& study, std::int64_t seed) {
  const std::string name = study.name(seed);
  const Stage stage(in.config, in.options, "finetune/" + name, settings_for(in, study, seed));
  const StudyFiles files(in.config, stage, name);
  const Splits& data = *(study.task == "tag" ? in.jets : in.taus);
  const Stopwatch watch;
  if (!stage.done()) {
    train_study(in, files, stage, study, seed, data);
  }
  if (!std::filesystem::exists(files.evaluation) || !std::filesystem::exists(files.answers)) {
    const std::string weights = evaluate_stored(in, files, study, data);
    record_stage(in.config, name, watch.seconds(), weights);
  }
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
