// tessera train-tokenizer: unlabelled jets in, tokenizer and its measure of itself out.
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/output.h"
#include "apps/run_record.h"
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

}  // namespace

void train_tokenizer_verb(const RunConfig& c, const Options& options) {
  check_vq_distance(tokenizer_config(c).distance, options.device);
  const UnlabelledData data = unlabelled_data(c);
  const Stage stage(
      c, options, "tokenizer",
      settings_of(c, {"data.", "tokenizer.", "run.seed", "run.compat"}) + precision_setting(c));
  if (stage.done()) {
    print_err("tokenizer: done before, kept ({})\n", stage.model());
    return;
  }
  const std::string card = tokenizer_card(tokenizer_config(c), data.features);
  const Stopwatch watch;
  TokenizerJob job = tokenizer_job(c);
  job.files = stage.files(card);
  job.device = options.device;
  const auto model = train_tokenizer(job, data, console_observer(options));
  const TokenizerMeasure m = measure_tokenizer(*model, data);
  const ordered_json report{{"reconstruction_mse", m.reconstruction_mse},
                            {"usage", m.usage},
                            {"perplexity", m.perplexity},
                            {"token_entropy", m.token_entropy},
                            {"code_counts", m.counts},
                            {"residuals", residuals(m)}};
  write_text(c.run.directory + "/eval/tokenizer.json", report.dump());
  stage.finish(card, *model);
  record_stage(c, "tokenizer", watch.seconds(), state_hash(*model));
  print_out(
      "tokenizer: on held-out jets, reconstruction MSE {:.4f}, codes used {:.1f} %, perplexity "
      "{:.1f}, unigram entropy {:.3f} nat\n",
      m.reconstruction_mse, 100 * m.usage, m.perplexity, m.token_entropy);
}

}  // namespace tessera::apps
