#include "train/tokenizer_job.h"

#include "core/autograd.h"
#include "nn/codebook.h"
#include "train/inputs.h"
#include "train/metrics/code_use.h"
#include "train/unlabelled_training.h"

namespace tessera {
namespace {

/// What a training step leaves for the codebook and the log; copies, since the step's arena goes.
struct StepResult {
  Tensor latent, codes;
};

/// Loss of a batch, watched with its parts; fills what it leaves behind.
Tensor loss_of(const Tokenizer& model, const TokenizerJob& job, const UnlabelledData& data,
               const Batch& batch, const DropoutStream& dropout, Trainer& trainer,
               StepResult& left) {
  const Segments jets = segments_of(batch);
  const Tensor x = core_features(batch, model.device());
  const TokenizerOutput out = model(x, jets, dropout);
  if (job.compat == Compat::clean) {
    trainer.watch("reconstruction", out.reconstruction_loss);
    trainer.watch("quantiser", out.quantizer_loss);
    const NoArena heap;
    left.latent = out.latent.detach().clone();
    left.codes = out.codes.clone();
    return out.loss;
  }
  const PaddedTokenizerLoss padded =
      padded_tokenizer_loss(model, out, x, jets, data.features.max_constituents);
  trainer.watch("clean_loss", out.loss);
  trainer.watch("reconstruction", padded.reconstruction_loss);
  trainer.watch("quantiser", padded.quantizer_loss);
  const NoArena heap;
  const PaddedLatents seen = with_pads(out, padded);
  left.latent = seen.latent;
  left.codes = seen.codes;
  return padded.loss;
}

/// Replaces dead codes: with fresh moments, or raw and with the old ones as published code does.
void observe_codes(Trainer& trainer, const Tokenizer& model, const TokenizerJob& job,
                   const StepResult& step) {
  const bool clean = job.compat == Compat::clean;
  const CodebookOptions options{.timeout = job.dead_code_timeout,
                                .affine_lr = job.model.affine_lr,
                                .inverse_affine = clean,
                                .kmeans = clean ? KmeansStart::plus_plus : KmeansStart::published};
  Codebook codebook{model.vq.codebook, model.vq.scale, model.vq.bias, model.vq.lru,
                    model.vq.initialised};
  Rng draws = Rng(job.seed).fork("codebook").fork(static_cast<std::uint64_t>(trainer.steps_done()));
  const auto replaced = codebook.observe(step.latent, step.codes, options, draws);
  if (clean) {
    trainer.forget(model.vq.codebook, replaced);
  }
}

/// Means over the particles of the validation jets.
Metrics validation_losses(const Tokenizer& model, const UnlabelledData& data) {
  double loss = 0, reconstruction = 0, particles = 0;
  const NoGrad off;
  for (const auto& set : data.validation) {
    for_each_batch(set, data.features, unlabelled_jets(data, *set), 256, [&](const Batch& batch) {
      const Segments jets = segments_of(batch);
      if (jets.total() == 0) {
        return;
      }
      const TokenizerOutput out = model(core_features(batch, model.device()), jets);
      const auto n = static_cast<double>(jets.total());
      loss += static_cast<double>(out.loss.item()) * n;
      reconstruction += static_cast<double>(out.reconstruction_loss.item()) * n;
      particles += n;
    });
  }
  TESSERA_CHECK_KIND(ErrorKind::data, particles > 0,
                     "tokenizer: expected a particle in the validation split to choose the best "
                     "state by, got none");
  return {{"val_loss", loss / particles}, {"val_reconstruction", reconstruction / particles}};
}

}  // namespace

std::unique_ptr<Tokenizer> train_tokenizer(const TokenizerJob& job, const UnlabelledData& data,
                                           const Observer& observe) {
  Rng init = Rng(job.seed).fork("tokenizer");
  auto model = std::make_unique<Tokenizer>(job.model, init);
  std::ranges::fill(model->vq.lru.span<std::int32_t>(),
                    static_cast<std::int32_t>(job.dead_code_timeout));
  model->to(job.device);
  train_unlabelled(
      unlabelled_training("tokenizer", job, *model, {Table::core}), data, observe,
      [&](TrainingRun& run, const Batch& batch) {
        StepResult left;
        const DropoutStream dropout = dropout_of(job.seed, run.trainer());
        run.step([&] { return loss_of(*model, job, data, batch, dropout, run.trainer(), left); });
        if (run.settle()) {
          observe_codes(run.trainer(), *model, job, left);
        }
      },
      [&] { return validation_losses(*model, data); });
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
    for_each_batch(set, data.features, unlabelled_jets(data, *set), 256, [&](const Batch& batch) {
      const Segments s = segments_of(batch);
      if (s.total() == 0) {
        return;
      }
      const Tensor codes = tokenizer.encode(core_features(batch, tokenizer.device()), s);
      const auto reco = tokenizer.decode(codes, s).to_vector<float>();
      for (const std::int32_t c : codes.to_vector<std::int32_t>()) {
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
  const CodeUse use = code_use(m.counts);
  m.usage = use.usage;
  m.token_entropy = entropy_of(use);
  if (use.tokens > 0) {
    m.reconstruction_mse = squares / entries;
    m.perplexity = use.perplexity;
  }
  return m;
}

}  // namespace tessera
