// Training of the particle tokenizer, and its measure of itself.
#pragma once

#include <optional>

#include "nn/models/reference_compat.h"
#include "nn/models/tokenizer.h"
#include "train/best_state.h"
#include "train/mixed_batches.h"

namespace tessera {

struct TokenizerJob {
  TokenizerConfig model;
  TrainerConfig trainer;
  std::int64_t batch = 256;             ///< jets
  std::int64_t dead_code_timeout = 50;  ///< forwards without use until a code is replaced
  std::uint64_t seed = 1;
  RunFiles files;
  Device device = kCpu;           ///< where it trains
  Compat compat = Compat::clean;  ///< reference: pads count up to data.max_constituents slots
  Selection selection{};          ///< by the clean loss
};

/// What a frozen tokenizer does to jets it was not trained on. Means over particles are nothing
/// where there is no particle.
struct TokenizerMeasure {
  std::optional<double> reconstruction_mse;  ///< transformed units, over all entries
  double usage = 0;                          ///< share of codes used
  std::optional<double> perplexity;          ///< exp of the entropy
  std::optional<double> token_entropy;       ///< nats, of the codes' frequencies
  std::vector<std::uint64_t> counts;         ///< of each code
  std::vector<float> truth, reco;            ///< (N, 3) core features of up to 100 000 particles
};

/// Trains on the training jets of `data`; a code that is unused for long is replaced by a latent of
/// the batch. `loss` in the log is what is trained; a reference training logs `clean_loss`, the
/// mean over real particles, beside it. Resumes from job.files.
std::unique_ptr<Tokenizer> train_tokenizer(const TokenizerJob& job, const UnlabelledData& data,
                                           const Observer& observe);

/// One pass over the validation jets of `data`.
TokenizerMeasure measure_tokenizer(const Tokenizer& tokenizer, const UnlabelledData& data);

}  // namespace tessera
