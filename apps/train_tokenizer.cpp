// tessera train-tokenizer: unlabelled jets in, tokenizer and its measure of itself out.
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/store.h"

namespace tessera::apps {

void train_tokenizer_verb(const RunConfig& c, const Options& options) {
  const std::string model_path = c.run + "/tokenizer.safetensors";
  if (options.dry_run) {
    fmt::print("{}", run_schema().dump(c));
    return;
  }
  if (is_done(model_path)) {
    fmt::print(stderr, "tokenizer: done before, kept ({})\n", model_path);
    return;
  }
  const TokenizerJob job{.model = tokenizer_config(c),
                         .trainer = {.lr = c.tokenizer_lr, .steps = c.tokenizer_steps},
                         .batch = c.tokenizer_batch,
                         .seed = static_cast<std::uint64_t>(c.seed)};
  write_text(c.run + "/config.toml", run_schema().dump(c));
  const TokenizerResult r = train_tokenizer(
      job, unlabelled_data(c), console_observer(options, c.run + "/curves/tokenizer.jsonl"));
  const nlohmann::ordered_json report{{"reconstruction_mse", r.reconstruction_mse},
                                      {"usage", r.usage},
                                      {"perplexity", r.perplexity},
                                      {"token_entropy", r.token_entropy},
                                      {"code_counts", r.counts}};
  write_text(c.run + "/eval/tokenizer.json", report.dump());
  save_state(model_path, state(*r.tokenizer));
  fmt::print(
      "tokenizer: reconstruction MSE {:.4f}, codes used {:.1f} %, perplexity {:.1f}, unigram "
      "entropy {:.3f} nat\n",
      r.reconstruction_mse, 100 * r.usage, r.perplexity, r.token_entropy);
}

}  // namespace tessera::apps
