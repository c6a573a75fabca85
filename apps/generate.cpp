// tessera generate: jets drawn from the pre-trained model, as a data file and against the truth.
#include <nlohmann/json.hpp>

#include <filesystem>

#include "apps/output.h"
#include "apps/run_record.h"
#include "apps/stages.h"
#include "train/generate.h"
#include "train/metrics/generation_quality.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

GenerateJob job_of(const RunConfig& c) {
  return {.jets = c.generate.jets,
          .draw = {.max_particles = c.data.max_particles,
                   .slots = c.generate.slots,
                   .temperature = c.generate.temperature,
                   .top_k = static_cast<int>(c.generate.top_k),
                   .top_p = c.generate.top_p,
                   .seed = static_cast<std::uint64_t>(c.run.seed)}};
}

GenerateProgress console_progress(const Options& options, std::int64_t jets) {
  const Observer observe = console_observer(options);
  if (!observe) {
    return {};
  }
  auto meter = std::make_shared<ProgressMeter>("generate", 0, static_cast<std::uint64_t>(jets));
  auto before = std::make_shared<std::int64_t>(0);
  return [=](std::int64_t done, std::int64_t) {
    observe(meter->update(static_cast<std::uint64_t>(done),
                          static_cast<std::uint64_t>(done - *before), {}, 0));
    *before = done;
  };
}

// What the report draws, and each distance beside the tokenizer's share and the truth's own floor.
ordered_json comparison_json(const GenerationComparison& comparison, const GenerateResult& r) {
  ordered_json histograms, metrics;
  for (const QuantityComparison& q : comparison.quantities) {
    histograms[q.name] = {{"edges", q.edges},
                          {"truth", q.truth},
                          {"reconstructed", q.reconstructed},
                          {"generated", q.generated},
                          {"unit", q.unit}};
    metrics["kld " + q.name] = q.generated_distance.kld;
    metrics["kld " + q.name + ", tokenizer alone"] = q.reconstructed_distance.kld;
    metrics["kld " + q.name + ", truth against truth"] = q.floor.kld;
    metrics["w1 " + q.name] = q.generated_distance.w1;
  }
  const auto jets = static_cast<double>(r.jets.size());
  metrics["jets below 3 particles"] = comparison.generated_below_3;
  metrics["jets below 3 particles, truth"] = comparison.truth_below_3;
  if (comparison.truth_floored + comparison.generated_floored > 0) {
    metrics["constituents with |pz| >= E"] = comparison.generated_floored;
    metrics["constituents with |pz| >= E, truth"] = comparison.truth_floored;
  }
  metrics["truncated jets"] = static_cast<double>(r.truncated) / jets;
  metrics["mean log-likelihood / nat"] = r.mean_log_likelihood;
  return {{"histograms", histograms}, {"metrics", metrics}};
}

/// Draws from a stored model of either kind.
template <class Model>
void generate_from(const Stored<Model>& model, const RunConfig& c, const Options& options) {
  const auto tokenizer = load_tokenizer(c.run.directory + "/tokenizer/model");
  const UnlabelledData data = pretraining_data(c);
  const Stage stage(c, options, "generate",
                    settings_of(c, {"data.", "generate.", "run.seed"}) + precision_setting(c) +
                        "model " + state_hash(*model.model) + "\n");
  model.model->to(options.device);
  tokenizer.model->to(options.device);
  const std::string report = c.run.directory + "/eval/generation.json";
  if (std::filesystem::exists(report)) {
    print_err("generate: done before, kept ({})\n", report);
    return;
  }
  const Stopwatch watch;
  const GenerateJob job = job_of(c);
  const GenerateResult r = generate_jets(job, model.model->backbone, model.model->head,
                                         *tokenizer.model, console_progress(options, job.jets));
  const std::string file = stage.directory() + "/jets.h5";
  write_generated(file, r, job, "tessera generate", {.overwrite = true});
  const auto comparison =
      compare_generated(original_jets(data, c.generate.jets),
                        reconstructed_jets(data, c.generate.jets, *tokenizer.model), r.particles);
  if (comparison.truth_floored + comparison.generated_floored > 0) {
    print_err(
        "generate: |pz| reaches the energy of {} held-out and {} generated constituents: their "
        "rapidity is floored at 14\n",
        comparison.truth_floored, comparison.generated_floored);
  }
  record_stage(c, "generate", watch.seconds(), "");
  write_text(report, comparison_json(comparison, r).dump());  // the last: it says that all is done
  print_out("generate: {} jets in {} ({:.0f} jets/s); KL divergence from held-out jets",
            r.jets.size(), file, static_cast<double>(r.jets.size()) / r.seconds);
  for (const QuantityComparison& q : comparison.quantities) {
    print_out("\n  {:20} {:7.4f}   tokenizer alone {:7.4f}   truth against truth {:7.4f}", q.name,
              q.generated_distance.kld, q.reconstructed_distance.kld, q.floor.kld);
  }
  print_out("\n");
}

}  // namespace

void generate_verb(const RunConfig& c, const Options& options) {
  const std::string directory = c.run.directory + "/pretrain/model";
  tokens_in(c) ? generate_from(load_gpt_pretrained(directory), c, options)
               : generate_from(load_pretrained(directory), c, options);
}

}  // namespace tessera::apps
