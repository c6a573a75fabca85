// tessera pretrain: the backbone, on unlabelled jets and their tokens.
#include <nlohmann/json.hpp>

#include "apps/evaluation.h"
#include "apps/output.h"
#include "apps/stages.h"
#include "train/model_store.h"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

constexpr const char* kReport = "eval/pretrain.json";

void write_report(const RunConfig& c, const PretrainMeasure& m) {
  const ordered_json defined =
      defined_in({{"ntp", m.ntp}, {"mpm", m.mpm}, {"token_entropy", m.unigram}});
  write_text(c.run.directory + "/" + kReport, defined.dump());
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

/// What both kinds of backbone are trained from.
struct Inputs {
  const RunConfig& config;
  const Options& options;
  const Stage& stage;
  const Tokenizer& tokenizer;
  const UnlabelledData& data;
};

/// Trains, stores and measures either backbone, or only measures the stored one; `load` reads it,
/// `measure` takes it.
template <class Job, class Load, class Measure>
void run(const Inputs& in, Job job, const std::string& card, const Load& load,
         const Measure& measure) {
  const Stopwatch watch;
  using Model = typename decltype(load(std::string()).model)::element_type;
  std::unique_ptr<Model> model;
  if (in.stage.trained()) {
    model = load(in.stage.model()).model;
    model->to(in.options.device);
  } else {
    job.files = in.stage.files(card);
    job.device = in.options.device;
    model = pretrain(job, in.tokenizer, in.data, console_observer(in.options));
    in.stage.keep(card, *model);
  }
  const PretrainMeasure m = measure(*model);
  write_report(in.config, m);
  in.stage.finish({watch.seconds(), state_hash(*model)});
  print_report(in.config, m);
}

}  // namespace

void pretrain_verb(const RunConfig& c, const Options& options) {
  const bool tokens = tokens_in(c);
  const auto stored = load_tokenizer(c.run.directory + "/tokenizer/model");
  stored.model->to(options.device);
  const Tokenizer& tokenizer = *stored.model;
  const UnlabelledData data = pretraining_data(c);
  check_contract(stored.features, data.features, "pretrain: the tokenizer");
  check_same_data(c, "tokenizer", unlabelled_use(c));
  const Stage stage(c, options, "pretrain",
                    settings_of(c, {"data.", "backbone.", "pretrain.", "run.seed", "run.compat"}) +
                        precision_setting(c) + "tokenizer " + tokenizer_hash(tokenizer) + "\n",
                    unlabelled_use(c), {model_product("pretrain"), kReport});
  if (stage.done()) {
    print_err("pretrain: done before, kept ({})\n", stage.model());
    return;
  }
  const Inputs in{c, options, stage, tokenizer, data};
  if (tokens) {
    run(in, gpt_pretrain_job(c), gpt_pretrain_card(gpt_config(c), data.features),
        load_gpt_pretrained,
        [&](const GptPretrainModel& m) { return measure_pretraining(m, tokenizer, data); });
  } else {
    const PretrainJob job = pretrain_job(c);
    run(in, job, pretrain_card(job.backbone, job.objective, data.features), load_pretrained,
        [&](const PretrainModel& m) { return measure_pretraining(m, tokenizer, data, job.seed); });
  }
}

}  // namespace tessera::apps
