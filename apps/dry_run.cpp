// --dry-run: the resolved configuration, what the models weigh, and what a step costs here. Nothing
// is written.
#include <sys/resource.h>

#include <algorithm>

#include "apps/output.h"
#include "apps/stages.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

constexpr std::int64_t kProbeSteps = 6;

/// Runs the first steps of a job in memory; returns the mean milliseconds of all but the first two,
/// which touch the memory.
double milliseconds_per_step(const std::function<void(const Observer&)>& job) {
  std::vector<double> at;
  const Stopwatch watch;
  job([&](const Progress&) { at.push_back(watch.seconds()); });
  return 1e3 * (at.back() - at[1]) / static_cast<double>(at.size() - 2);
}

double peak_megabytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void print_costs(const char* stage, std::int64_t parameters, double step_ms, double total_steps) {
  // weights, gradients and two moments, four bytes each
  print_out("{:16} {:9} parameters {:7.1f} MB with optimizer {:8.1f} ms/step {:8.0f} s in all\n",
            stage, parameters, 16e-6 * static_cast<double>(parameters), step_ms,
            1e-3 * step_ms * total_steps);
}

/// The same job for a few steps.
template <class Job>
Job probe(Job job) {
  job.trainer.steps = kProbeSteps;
  job.trainer.warmup = 1;
  return job;
}

void probe_tokenizer(const RunConfig& c) {
  std::int64_t parameters = 0;
  const double ms = milliseconds_per_step([&](const Observer& observe) {
    parameters =
        train_tokenizer(probe(tokenizer_job(c)), unlabelled_data(c), observe)->parameter_count();
  });
  print_costs("train-tokenizer", parameters, ms, static_cast<double>(c.tokenizer.trainer.steps));
}

void probe_pretraining(const RunConfig& c) {
  Rng rng(1);
  Tokenizer tokenizer(tokenizer_config(c), rng);
  tokenizer.freeze();
  std::int64_t parameters = 0;
  const double ms = milliseconds_per_step([&](const Observer& observe) {
    const auto data = pretraining_data(c);
    parameters =
        tokens_in(c)
            ? pretrain(probe(gpt_pretrain_job(c)), tokenizer, data, observe)->parameter_count()
            : pretrain(probe(pretrain_job(c)), tokenizer, data, observe)->parameter_count();
  });
  print_costs("pretrain", parameters, ms, static_cast<double>(c.pretrain.trainer.steps));
}

// One run of the first task from scratch with the largest subset; a study has many.
void probe_finetuning(const RunConfig& c) {
  std::vector<Study> studies = studies_of(c);
  TESSERA_CHECK(!studies.empty(), "finetune: no task, method or strategy is asked for");
  const Study study{studies[0].task, name(tokens_in(c) ? Method::omnijet : Method::tessera),
                    "scratch", std::ranges::max(c.finetune.train_jets)};
  const std::string& directory = study.task == "tag" ? c.data.jets : c.data.taus;
  const Splits data = open_splits(directory, parse_task(study.task), c);
  check_labels(parse_task(study.task), finetune_validation(c), data);
  const FinetuneJob whole = finetune_job(c, study, 0, *data.train);
  Rng rng(1);
  const Tokenizer tokenizer(tokenizer_config(c), rng);
  const Foundation foundation{{}, state(tokenizer)};
  std::int64_t parameters = 0;
  const double ms = milliseconds_per_step([&](const Observer& observe) {
    FinetuneJob job = probe(whole);
    job.evaluations = 1;
    parameters = finetune(job, data, foundation, observe).model->parameter_count();
  });
  print_costs("finetune, a run", parameters, ms, static_cast<double>(whole.trainer.steps));
}

}  // namespace

void dry_run(const RunConfig& c, const std::string& verb) {
  print_out("{}\n", run_schema().dump(c));
  if (verb == "train-tokenizer") {
    probe_tokenizer(c);
  } else if (verb == "pretrain") {
    probe_pretraining(c);
  } else if (verb == "finetune") {
    probe_finetuning(c);
  }
  print_out("{:16} {:9.0f} MB peak memory of this process\n", "", peak_megabytes());
}

}  // namespace tessera::apps
