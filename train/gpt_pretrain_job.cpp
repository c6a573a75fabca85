#include "train/gpt_pretrain_job.h"

#include "core/autograd.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "nn/models/token_sequence.h"
#include "train/inputs.h"
#include "train/metrics/code_use.h"
#include "train/unlabelled_training.h"

namespace tessera {
namespace {

/// The tokens of a batch for next-token training, cut at `slots` unless 0.
TokenSequences sequences_of(const Tokenizer& tokenizer, const Batch& batch, std::int64_t slots) {
  const Segments jets = segments_of(batch);
  return next_token_sequences(tokenizer.encode(core_features(batch, tokenizer.device()), jets),
                              jets, tokenizer.config.codes, slots);
}

/// Mean over the real targets.
Tensor next_token_loss(const GptPretrainModel& model, const TokenSequences& s,
                       const DropoutStream& dropout = {}) {
  return linear_cross_entropy(model.backbone(s.ids, s.segments, dropout), model.head.ntp.weight,
                              model.head.ntp.bias, s.targets);
}

/// The loss that is trained, watched; and "ntp", the mean over real targets.
Tensor trained_loss(const GptPretrainModel& model, const TokenSequences& s, std::int64_t slots,
                    const DropoutStream& dropout, Trainer& trainer) {
  if (slots == 0) {
    const Tensor loss = next_token_loss(model, s, dropout);
    trainer.watch("ntp", loss);
    return loss;
  }
  const PaddedNextTokenLoss padded = padded_next_token_loss(model.backbone, model.head, s.ids,
                                                            s.targets, s.segments, slots, dropout);
  trainer.watch("ntp", padded.clean);
  return padded.loss;
}

}  // namespace

GptPretrainModel::GptPretrainModel(const GptConfig& config, Rng& rng)
    : backbone(config, rng), head(config.width, config.vocabulary, rng) {
  child("backbone", backbone);
  child("head", head);
}

std::unique_ptr<GptPretrainModel> pretrain(const GptPretrainJob& job, const Tokenizer& tokenizer,
                                           const UnlabelledData& data, const Observer& observe) {
  TESSERA_CHECK(job.backbone.vocabulary == tokenizer.config.codes + 2,
                "pretrain: {} codes need a vocabulary of {}, got {}", tokenizer.config.codes,
                tokenizer.config.codes + 2, job.backbone.vocabulary);
  Rng init = Rng(job.seed).fork("pretrain");
  auto model = std::make_unique<GptPretrainModel>(job.backbone, init);
  model->to(job.device);
  const std::int64_t slots =
      job.compat == Compat::reference ? data.features.max_constituents : std::int64_t{0};
  train_unlabelled(
      unlabelled_training("pretrain", job, *model, {Table::core}), data, observe,
      [&](TrainingRun& run, const Batch& batch) {
        const DropoutStream dropout = dropout_of(job.seed, run.trainer());
        run.step([&] {
          return trained_loss(*model, sequences_of(tokenizer, batch, slots), slots, dropout,
                              run.trainer());
        });
      },
      [&] { return validation_metrics(measure_pretraining(*model, tokenizer, data)); });
  model->set_training(false);
  return model;
}

PretrainMeasure measure_pretraining(const GptPretrainModel& model, const Tokenizer& tokenizer,
                                    const UnlabelledData& data) {
  double ntp = 0, rows = 0;
  TokenFrequencies targets(tokenizer.config.codes);
  const NoGrad off;
  for (const auto& set : data.validation) {
    for_each_batch(set, data.features, unlabelled_jets(data, *set), 256, [&](const Batch& batch) {
      const Segments jets = segments_of(batch);
      const Tensor codes = tokenizer.encode(core_features(batch, tokenizer.device()), jets);
      const TokenSequences s = next_token_sequences(codes, jets, tokenizer.config.codes);
      const auto n = static_cast<double>(s.segments.total());
      ntp += static_cast<double>(next_token_loss(model, s).item()) * n;
      rows += n;
      targets.add(codes, batch.size());
    });
  }
  if (rows == 0) {
    return {};
  }
  return {.ntp = ntp / rows, .loss = ntp / rows, .unigram = targets.entropy()};
}

}  // namespace tessera
