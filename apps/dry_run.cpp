// --dry-run: the resolved configuration, what the models weigh, and what a step costs here. Nothing
// is written.
#include <sys/resource.h>

#include <filesystem>

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
  fmt::print("{:16} {:9} parameters {:7.1f} MB with optimizer {:8.1f} ms/step {:8.0f} s in all\n",
             stage, parameters, 16e-6 * static_cast<double>(parameters), step_ms,
             1e-3 * step_ms * total_steps);
}

TrainerConfig probe() { return {.steps = kProbeSteps, .warmup = 1}; }

void probe_tokenizer(const RunConfig& c) {
  std::int64_t parameters = 0;
  const double ms = milliseconds_per_step([&](const Observer& observe) {
    const TokenizerJob job{
        .model = tokenizer_config(c), .trainer = probe(), .batch = c.tokenizer.batch};
    parameters = train_tokenizer(job, unlabelled_data(c), observe)->parameter_count();
  });
  print_costs("train-tokenizer", parameters, ms, static_cast<double>(c.tokenizer.steps));
}

void probe_pretraining(const RunConfig& c) {
  Rng rng(1);
  const Tokenizer tokenizer(tokenizer_config(c), rng);
  std::int64_t parameters = 0;
  const double ms = milliseconds_per_step([&](const Observer& observe) {
    const PretrainJob job{.backbone = backbone_config(c),
                          .objective = pretrain_config(c),
                          .trainer = probe(),
                          .batch = c.pretrain.batch};
    parameters = pretrain(job, tokenizer, unlabelled_data(c), observe)->parameter_count();
  });
  print_costs("pretrain", parameters, ms, static_cast<double>(c.pretrain.steps));
}

// One run of the largest task; a study has many.
void probe_finetuning(const RunConfig& c) {
  const auto open = [&](const char* split) {
    return std::make_shared<Dataset>(c.data.jets, DatasetOptions{.split = split});
  };
  const Splits data{open("train"), open("val"), open("test"), feature_config(c)};
  std::int64_t parameters = 0;
  const double ms = milliseconds_per_step([&](const Observer& observe) {
    const FinetuneJob job{.model = {.task = Task::tag,
                                    .backbone = backbone_config(c),
                                    .head_blocks = c.finetune.head_blocks,
                                    .outputs = outputs_of(Task::tag, *data.train)},
                          .strategy = Strategy::scratch,
                          .trainer = probe(),
                          .batch = c.finetune.batch,
                          .train_jets = c.finetune.train_jets,
                          .evaluations = 1};
    parameters = finetune(job, data, {}, observe).model->parameter_count();
  });
  print_costs("finetune, a run", parameters, ms, static_cast<double>(c.finetune.steps));
}

}  // namespace

void dry_run(const RunConfig& c, const std::string& verb) {
  fmt::print("{}\n", run_schema().dump(c));
  if (verb == "train-tokenizer") {
    probe_tokenizer(c);
  } else if (verb == "pretrain") {
    probe_pretraining(c);
  } else if (verb == "finetune") {
    probe_finetuning(c);
  }
  fmt::print("{:16} {:9.0f} MB peak memory of this process\n", "", peak_megabytes());
}

}  // namespace tessera::apps
