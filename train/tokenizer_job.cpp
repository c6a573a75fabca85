#include "train/tokenizer_job.h"

#include "core/autograd.h"
#include "nn/codebook.h"
#include "train/inputs.h"
#include "train/metrics.h"

namespace tessera {
namespace {

/// What a training step leaves for the codebook and the log; copies, since the step's arena goes.
struct StepResult {
  Tensor latent, codes;
  Metrics metrics;
};

StepResult step_tokenizer(Trainer& trainer, const Tokenizer& model, const Batch& batch) {
  StepResult r;
  trainer.step([&] {
    const TokenizerOutput out = model(core_features(batch), segments_of(batch));
    r.metrics = {{"loss", static_cast<double>(out.loss.item())},
                 {"reconstruction", static_cast<double>(out.reconstruction_loss)},
                 {"quantiser", static_cast<double>(out.quantizer_loss)}};
    const NoArena heap;
    r.latent = out.latent.detach().clone();
    r.codes = out.codes.clone();
    return out.loss;
  });
  return r;
}

/// Replaces dead codes, with fresh moments.
void observe_codes(Trainer& trainer, const Tokenizer& model, const TokenizerJob& job,
                   const StepResult& step) {
  const CodebookOptions options{.timeout = job.dead_code_timeout, .affine_lr = job.model.affine_lr};
  Codebook codebook{model.vq.codebook, model.vq.scale, model.vq.bias, model.vq.lru,
                    model.vq.initialised};
  Rng draws = Rng(job.seed).fork("codebook").fork(static_cast<std::uint64_t>(trainer.steps_done()));
  const auto replaced = codebook.observe(step.latent, step.codes, options, draws);
  trainer.forget(model.vq.codebook, replaced);
}

}  // namespace

std::unique_ptr<Tokenizer> train_tokenizer(const TokenizerJob& job, const UnlabelledData& data,
                                           const Observer& observe) {
  Rng init = Rng(job.seed).fork("tokenizer");
  auto model = std::make_unique<Tokenizer>(job.model, init);
  std::ranges::fill(model->vq.lru.span<std::int32_t>(),
                    static_cast<std::int32_t>(job.dead_code_timeout));
  TrainingRun run({.job = "tokenizer",
                   .groups = {{model->named_parameters()}},
                   .state = state(*model),
                   .trainer = job.trainer},
                  job.files, observe);
  MixedBatches batches(data, job.batch, job.seed, run.texts());
  run.on_save([&](Checkpoint& c) { batches.save(c.state); });
  while (!run.finished()) {
    const Batch batch = batches.next(run.trainer().steps_done());
    StepResult step = step_tokenizer(run.trainer(), *model, batch);
    observe_codes(run.trainer(), *model, job, step);
    run.end_step(batch.size(), std::move(step.metrics), batches.waited_seconds());
  }
  model->freeze();
  return model;
}

TokenizerMeasure measure_tokenizer(const Tokenizer& tokenizer, const UnlabelledData& data) {
  constexpr std::size_t kKept = 3 * 100'000;
  TokenizerMeasure m;
  m.counts.assign(static_cast<std::size_t>(tokenizer.config.codes), 0);
  double squares = 0, entries = 0;
  const NoGrad off;
  for (const auto& set : data.validation) {
    for_each_batch(set, data.features, without_empty(*set, {}), 256, [&](const Batch& batch) {
      const Segments s = segments_of(batch);
      const Tensor codes = tokenizer.encode(core_features(batch), s);
      const auto reco = tokenizer.decode(codes, s).to_vector<float>();
      for (const std::int32_t c : codes.span<const std::int32_t>()) {
        ++m.counts[static_cast<std::size_t>(c)];
      }
      for (std::size_t i = 0; i < reco.size(); ++i) {
        const double d = static_cast<double>(reco[i]) - static_cast<double>(batch.rows.core[i]);
        squares += d * d;
      }
      entries += static_cast<double>(reco.size());
      if (m.truth.size() < kKept) {
        m.truth.insert(m.truth.end(), batch.rows.core.begin(), batch.rows.core.end());
        m.reco.insert(m.reco.end(), reco.begin(), reco.end());
      }
    });
  }
  m.reconstruction_mse = squares / entries;
  const CodeUse use = code_use(m.counts);
  m.usage = use.usage;
  m.perplexity = use.perplexity;
  m.token_entropy = std::log(use.perplexity);
  return m;
}

}  // namespace tessera
