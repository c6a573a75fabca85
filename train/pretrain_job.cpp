#include "train/pretrain_job.h"

#include "core/autograd.h"
#include "train/inputs.h"
#include "train/metrics/code_use.h"
#include "train/unlabelled_training.h"

namespace tessera {
namespace {

/// One pass of both objectives, and how many rows each scored.
struct Pass {
  PretrainOutput out;
  Tensor codes;
  double ntp_rows = 0, mpm_rows = 0;
};

Pass forward(const PretrainModel& model, const Tokenizer& tokenizer, const Batch& batch,
             const Rng& masks, const DropoutStream& dropout = {}) {
  Pass pass;
  const ParticleFeatures raw = particle_features(batch, true, model.device());
  ParticleFeatures tokens = particle_features(batch, false, model.device());
  pass.codes = tokenizer.encode(raw.core, raw.segments);
  tokens.core = tokenizer.decode(pass.codes, raw.segments);
  const auto hidden = choose_masks(raw.segments, model.head.config.mask_fraction, masks);
  pass.out = model.head(model.backbone, tokens, raw, pass.codes, hidden, dropout);
  pass.ntp_rows = static_cast<double>(raw.segments.total() + raw.segments.count());
  pass.mpm_rows = static_cast<double>(std::ranges::count(hidden, 1));
  return pass;
}

}  // namespace

PretrainModel::PretrainModel(const BackboneConfig& b, const PretrainConfig& objective, Rng& rng)
    : backbone(b, rng), head(b.width, b.heads, objective, rng) {
  child("backbone", backbone);
  child("head.pretrain", head);
}

std::unique_ptr<PretrainModel> pretrain(const PretrainJob& job, const Tokenizer& tokenizer,
                                        const UnlabelledData& data, const Observer& observe) {
  Rng init = Rng(job.seed).fork("pretrain");
  auto model = std::make_unique<PretrainModel>(job.backbone, job.objective, init);
  model->to(job.device);
  const Rng masks = Rng(job.seed).fork("masks");
  train_unlabelled(
      unlabelled_training("pretrain", job, *model, {Table::core, Table::pid, Table::context}), data,
      observe,
      [&](TrainingRun& run, const Batch& batch) {
        const Rng hidden = masks.fork(static_cast<std::uint64_t>(run.steps_done()));
        const DropoutStream dropout = dropout_of(job.seed, run.trainer());
        run.step([&] {
          const Pass pass = forward(*model, tokenizer, batch, hidden, dropout);
          run.trainer().watch("ntp", pass.out.ntp_code);
          run.trainer().watch("mpm", pass.out.mpm_code);
          return pass.out.loss;
        });
      },
      [&] { return validation_metrics(measure_pretraining(*model, tokenizer, data, job.seed)); });
  model->set_training(false);
  return model;
}

PretrainMeasure measure_pretraining(const PretrainModel& model, const Tokenizer& tokenizer,
                                    const UnlabelledData& data, std::uint64_t seed) {
  double loss = 0, ntp = 0, mpm = 0, ntp_rows = 0, mpm_rows = 0, jets = 0;
  TokenFrequencies targets(model.head.config.codes);
  Rng masks = Rng(seed).fork("validation masks");
  std::uint64_t batch_index = 0;
  const NoGrad off;
  for (const auto& set : data.validation) {
    for_each_batch(set, data.features, unlabelled_jets(data, *set), 256, [&](const Batch& batch) {
      const Pass pass = forward(model, tokenizer, batch, masks.fork(batch_index++));
      ntp += static_cast<double>(pass.out.ntp_code.item()) * pass.ntp_rows;
      mpm += static_cast<double>(pass.out.mpm_code.item()) * pass.mpm_rows;
      ntp_rows += pass.ntp_rows;
      mpm_rows += pass.mpm_rows;
      loss += static_cast<double>(pass.out.loss.item()) * static_cast<double>(batch.size());
      jets += static_cast<double>(batch.size());
      targets.add(pass.codes, batch.size());
    });
  }
  const auto mean = [](double sum, double rows) {
    return rows > 0 ? std::optional(sum / rows) : std::nullopt;
  };
  return {.ntp = mean(ntp, ntp_rows),
          .mpm = mean(mpm, mpm_rows),
          .loss = mean(loss, jets),
          .unigram = targets.entropy()};
}

Metrics validation_metrics(const PretrainMeasure& m) {
  TESSERA_CHECK_KIND(ErrorKind::data, m.loss && m.ntp,
                     "pretrain: expected a jet in the validation split to choose the best state "
                     "by, got none");
  Metrics line{{"val_loss", *m.loss}, {"val_ntp", *m.ntp}};
  if (m.mpm) {
    line.push_back({"val_mpm", *m.mpm});
  }
  return line;
}

}  // namespace tessera
