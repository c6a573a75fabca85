// tessera pretrain: the backbone, on unlabelled jets and their tokens.
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/output.h"
#include "apps/run_record.h"
#include "apps/stages.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

void write_report(const RunConfig& c, const PretrainMeasure& m) {
  const ordered_json defined =
      defined_in({{"ntp", m.ntp}, {"mpm", m.mpm}, {"token_entropy", m.unigram}});
  write_text(c.run.directory + "/eval/pretrain.json", defined.dump());
}

void print_report(const RunConfig& c, const PretrainMeasure& m) {
  const bool masks = !tokens_in(c) && c.pretrain.mask_fraction > 0;
  const auto margin =
      m.unigram && m.ntp ? std::optional(*m.unigram - *m.ntp) : std::optional<double>();
  print_out(
      "pretrain: on held-out jets, next token {}, masked particle {}; unigram entropy {}: margin "
      "{}\n",
      shown(m.ntp, 3, " nat"), masks ? shown(m.mpm, 3, " nat") : "not trained",
      shown(m.unigram, 3, " nat"), shown(margin, 3));
}

/// Trains, measures and stores either backbone; `measure` takes the model.
template <class Job, class Measure>
void run(const RunConfig& c, const Options& options, const Stage& stage, Job job,
         const std::string& card, const Tokenizer& tokenizer, const UnlabelledData& data,
         const Measure& measure) {
  const Stopwatch watch;
  job.files = stage.files(card);
  job.device = options.device;
  const auto model = pretrain(job, tokenizer, data, console_observer(options));
  const PretrainMeasure m = measure(*model);
  write_report(c, m);
  stage.finish(card, *model);
  record_stage(c, "pretrain", watch.seconds(), state_hash(*model));
  print_report(c, m);
}

}  // namespace

void pretrain_verb(const RunConfig& c, const Options& options) {
  const bool tokens = tokens_in(c);
  const auto stored = load_tokenizer(c.run.directory + "/tokenizer/model");
  stored.model->to(options.device);
  const Tokenizer& tokenizer = *stored.model;
  const UnlabelledData data = pretraining_data(c);
  check_contract(stored.features, data.features, "pretrain: the tokenizer");
  const Stage stage(c, options, "pretrain",
                    settings_of(c, {"data.", "backbone.", "pretrain.", "run.seed", "run.compat"}) +
                        precision_setting(c) + "tokenizer " + tokenizer_hash(tokenizer) + "\n");
  if (stage.done()) {
    print_err("pretrain: done before, kept ({})\n", stage.model());
    return;
  }
  if (tokens) {
    run(c, options, stage, gpt_pretrain_job(c), gpt_pretrain_card(gpt_config(c), data.features),
        tokenizer, data,
        [&](const GptPretrainModel& m) { return measure_pretraining(m, tokenizer, data); });
  } else {
    const PretrainJob job = pretrain_job(c);
    run(c, options, stage, job, pretrain_card(job.backbone, job.objective, data.features),
        tokenizer, data,
        [&](const PretrainModel& m) { return measure_pretraining(m, tokenizer, data, job.seed); });
  }
}

}  // namespace tessera::apps
