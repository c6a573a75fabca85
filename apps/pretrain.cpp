// tessera pretrain: the backbone, on unlabelled jets and their tokens.
#include <nlohmann/json.hpp>

#include "apps/run_record.h"
#include "apps/stages.h"
#include "train/model_store.h"

namespace tessera::apps {

void pretrain_verb(const RunConfig& c, const Options& options) {
  const auto tokenizer = load_tokenizer(c.run.directory + "/tokenizer/model");
  const UnlabelledData data = unlabelled_data(c);
  check_contract(tokenizer.features, data.features, "pretrain: the tokenizer");
  const Stage stage(c, options, "pretrain",
                    settings_of(c, {"data.", "backbone.", "pretrain.", "run.seed"}) + "tokenizer " +
                        state_hash(*tokenizer.model) + "\n");
  if (stage.done()) {
    fmt::print(stderr, "pretrain: done before, kept ({})\n", stage.model());
    return;
  }
  const std::string card = pretrain_card(backbone_config(c), pretrain_config(c), data.features);
  const Stopwatch watch;
  const PretrainJob job{.backbone = backbone_config(c),
                        .objective = pretrain_config(c),
                        .trainer = {.lr = c.pretrain.lr,
                                    .weight_decay = 0.05F,
                                    .beta2 = 0.99F,
                                    .steps = c.pretrain.steps,
                                    .warmup = c.pretrain.warmup},
                        .batch = c.pretrain.batch,
                        .seed = static_cast<std::uint64_t>(c.run.seed),
                        .files = stage.files(card)};
  const auto model = pretrain(job, *tokenizer.model, data, console_observer(options));
  const PretrainMeasure m = measure_pretraining(*model, *tokenizer.model, data, job.seed);
  write_text(
      c.run.directory + "/eval/pretrain.json",
      nlohmann::ordered_json{{"ntp", m.ntp}, {"mpm", m.mpm}, {"token_entropy", m.unigram}}.dump());
  stage.finish(card, *model);
  record_stage(c, "pretrain", watch.seconds(), state_hash(*model));
  fmt::print(
      "pretrain: on held-out jets, next token {:.3f} nat, masked particle {:.3f} nat; unigram "
      "entropy {:.3f} nat: margin {:.3f}\n",
      m.ntp, m.mpm, m.unigram, m.unigram - m.ntp);
}

}  // namespace tessera::apps
