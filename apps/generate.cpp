// tessera generate: jets drawn from the pre-trained model, as a data file and against the truth.
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/output.h"
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
  ordered_json histograms = ordered_json::object(), metrics;
  for (const QuantityComparison& q : comparison.quantities) {
    histograms[q.name] = {{"edges", q.edges},
                          {"truth", q.truth},
                          {"reconstructed", q.reconstructed},
                          {"generated", q.generated},
                          {"unit", q.unit}};
    metrics["kld " + q.name] = q.generated_distance.kld;
    metrics["kld " + q.name + ", tokenizer alone"] = q.reconstructed_distance.kld;
    if (q.floor) {
      metrics["kld " + q.name + ", truth against truth"] = q.floor->kld;
    }
    metrics["w1 " + q.name] = q.generated_distance.w1;
  }
  const auto jets = static_cast<double>(r.jets.size());
  if (!comparison.quantities.empty()) {
    metrics["jets below 3 particles"] = comparison.generated_below_3;
    metrics["jets below 3 particles, truth"] = comparison.truth_below_3;
  }
  if (comparison.truth_floored + comparison.generated_floored > 0) {
    metrics["constituents with |pz| >= E"] = comparison.generated_floored;
    metrics["constituents with |pz| >= E, truth"] = comparison.truth_floored;
  }
  metrics["truncated jets"] = static_cast<double>(r.truncated) / jets;
  metrics["mean log-likelihood / nat"] = r.mean_log_likelihood;
  ordered_json out{{"histograms", histograms}, {"metrics", metrics}};
  for (const auto& [quantity, reason] : comparison.undefined) {
    out["undefined"][quantity] = reason;
  }
  return out;
}

/// With the held-out jets of `data`; where there is none, nothing is defined but that.
GenerationComparison compared(const UnlabelledData& data, std::int64_t jets,
                              const Tokenizer& tokenizer, const JetBlock& generated) {
  const JetBlock truth = original_jets(data, jets);
  if (truth.jets() == 0) {
    GenerationComparison none;
    none.undefined.emplace_back("comparison", "no held-out jet takes part");
    return none;
  }
  return compare_generated(truth, reconstructed_jets(data, jets, tokenizer), generated);
}

void print_comparison(const GenerationComparison& comparison) {
  for (const QuantityComparison& q : comparison.quantities) {
    const auto floor = q.floor ? std::optional(q.floor->kld) : std::nullopt;
    print_out("\n  {:20} {:7.4f}   tokenizer alone {:7.4f}   truth against truth {:>7}", q.name,
              q.generated_distance.kld, q.reconstructed_distance.kld, shown(floor, 4));
  }
  print_out("\n");
  for (const auto& [quantity, reason] : comparison.undefined) {
    print_err("generate: {} is not defined: {}\n", quantity, reason);
  }
}

/// Draws from a stored model of either kind.
template <class Model>
void generate_from(const Stored<Model>& model, const RunConfig& c, const Options& options) {
  const auto tokenizer = load_tokenizer(c.run.directory + "/tokenizer/model");
  const std::string drawn = "generate/jets.h5", report = "eval/generation.json";
  const UnlabelledData data = pretraining_data(c);
  const Stage stage(c, options, "generate",
                    settings_of(c, {"data.", "generate.", "run.seed"}) + precision_setting(c) +
                        "model " + state_hash(*model.model) + "\n",
                    unlabelled_use(c), {drawn, report});
  if (stage.done()) {
    print_err("generate: done before, kept ({})\n", c.run.directory + "/" + report);
    return;
  }
  model.model->to(options.device);
  tokenizer.model->to(options.device);
  const Stopwatch watch;
  const GenerateJob job = job_of(c);
  const GenerateResult r = generate_jets(job, model.model->backbone, model.model->head,
                                         *tokenizer.model, console_progress(options, job.jets));
  const std::string file = c.run.directory + "/" + drawn;
  write_generated(file, r, job, "tessera generate", {.overwrite = true});
  const auto comparison = compared(data, c.generate.jets, *tokenizer.model, r.particles);
  if (comparison.truth_floored + comparison.generated_floored > 0) {
    print_err(
        "generate: |pz| reaches the energy of {} held-out and {} generated constituents: their "
        "rapidity is floored at 14\n",
        comparison.truth_floored, comparison.generated_floored);
  }
  write_text(c.run.directory + "/" + report, comparison_json(comparison, r).dump());
  stage.finish({.seconds = watch.seconds(), .weights = ""});
  print_out("generate: {} jets in {} ({:.0f} jets/s); KL divergence from held-out jets",
            r.jets.size(), file, static_cast<double>(r.jets.size()) / r.seconds);
  print_comparison(comparison);
}

}  // namespace

void generate_verb(const RunConfig& c, const Options& options) {
  const std::string directory = c.run.directory + "/pretrain/model";
  tokens_in(c) ? generate_from(load_gpt_pretrained(directory), c, options)
               : generate_from(load_pretrained(directory), c, options);
}

}  // namespace tessera::apps
