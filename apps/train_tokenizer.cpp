// tessera train-tokenizer: unlabelled jets in, tokenizer and its measure of itself out.
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/output.h"
#include "apps/stages.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

struct Residual {
  const char *name, *unit;
  double range;
};

// Residuals of pT (relative), d eta and d phi of reconstructed particles.
ordered_json residuals(const TokenizerMeasure& m) {
  constexpr Residual kResiduals[] = {{"pt", "", 1}, {"deta", "", 0.1}, {"dphi", "rad", 0.1}};
  ordered_json out;
  for (std::size_t f = 0; f < std::size(kResiduals); ++f) {
    std::vector<double> values;
    for (std::size_t i = f; i < m.truth.size(); i += 3) {
      const double gap = static_cast<double>(m.reco[i]) - static_cast<double>(m.truth[i]);
      values.push_back(f == 0 ? std::expm1(gap) : kCoreTransforms[f].inverse(gap));
    }
    const Residual& r = kResiduals[f];
    out[r.name] = histogram(values, -r.range, r.range, 80);
    out[r.name]["unit"] = r.unit;
  }
  return out;
}

ordered_json evaluation_of(const TokenizerMeasure& m) {
  ordered_json e = defined_in({{"reconstruction_mse", m.reconstruction_mse},
                               {"usage", m.usage},
                               {"perplexity", m.perplexity},
                               {"token_entropy", m.token_entropy}});
  e["code_counts"] = m.counts;
  e["residuals"] = residuals(m);
  return e;
}

// The stored one where the stage was trained before, and only its measure is missing.
std::unique_ptr<Tokenizer> trained_tokenizer(const RunConfig& c, const Options& options,
                                             const Stage& stage, const UnlabelledData& data) {
  if (stage.trained()) {
    auto model = load_tokenizer(stage.model()).model;
    model->to(options.device);
    return model;
  }
  const std::string card = tokenizer_card(tokenizer_config(c), data.features);
  TokenizerJob job = tokenizer_job(c);
  job.files = stage.files(card);
  job.device = options.device;
  auto model = train_tokenizer(job, data, console_observer(options));
  stage.keep(card, *model);
  return model;
}

}  // namespace

void train_tokenizer_verb(const RunConfig& c, const Options& options) {
  check_vq_distance(tokenizer_config(c).distance, options.device);
  const std::string report = "eval/tokenizer.json";
  const UnlabelledData data = unlabelled_data(c);
  const Stage stage(
      c, options, "tokenizer",
      settings_of(c, {"data.", "tokenizer.", "run.seed", "run.compat"}) + precision_setting(c),
      unlabelled_use(c), {model_product("tokenizer"), report});
  if (stage.done()) {
    print_err("tokenizer: done before, kept ({})\n", stage.model());
    return;
  }
  const Stopwatch watch;
  const auto model = trained_tokenizer(c, options, stage, data);
  const TokenizerMeasure m = measure_tokenizer(*model, data);
  write_text(c.run.directory + "/" + report, evaluation_of(m).dump());
  stage.finish({watch.seconds(), state_hash(*model)});
  print_out(
      "tokenizer: on held-out jets, reconstruction MSE {}, codes used {:.1f} %, perplexity {}, "
      "unigram entropy {}\n",
      shown(m.reconstruction_mse, 4), 100 * m.usage, shown(m.perplexity, 1),
      shown(m.token_entropy, 3, " nat"));
}

}  // namespace tessera::apps
