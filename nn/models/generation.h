// Jets written token by token: incremental decoding of both backbones with cached keys and values.
#pragma once

#include <functional>
#include <span>

#include "nn/models/pretraining.h"
#include "nn/models/tokenizer.h"

namespace tessera {

/// How jets are drawn. A jet's tokens follow from (seed, uid) and the model alone: neither from the
/// slots, nor from the other jets, nor from the threads.
struct GenerateOptions {
  std::int64_t max_particles = 128;  ///< a jet that has not stopped after these is truncated
  std::int64_t slots = 64;           ///< jets in flight at once
  float temperature = 1;             ///< these three as in SampleOptions
  int top_k = 0;
  float top_p = 1;
  std::uint64_t seed = 1;
};

struct GeneratedJet {
  std::uint64_t uid = 0;
  std::vector<std::int32_t> codes;  ///< 0 .. K-1, in the order drawn
  std::vector<std::int32_t> pids;   ///< 0 .. 7 of each; empty where the model has none
  /// Sum of ln softmax(logits) of the codes and of the stop token that ended the jet, over the
  /// whole vocabulary and at temperature 1 whatever it was drawn with: what training measures.
  double log_likelihood = 0;
  double pid_log_likelihood = 0;  ///< the same of the particle ids, given the codes
  bool truncated = false;         ///< ended by max_particles, not by a stop token
};

using GenerateProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// What a jet feeds to its model next: the start row, or the particle that it drew last.
struct DecodeInput {
  std::int32_t slot = 0;
  std::int32_t position = 0;  ///< row of the jet: 0 is the start, k its k-th particle
  std::int32_t code = -1;     ///< of the particle; ignored at the start
  std::int32_t pid = -1;
};

/// Keys and values of a stack of blocks, one cache a block.
using BlockCaches = std::vector<KeyValueCache>;

/// OmniJet-alpha's GPT, one row a jet and step: tokens in, states of the next token out.
class GptDecoder {
 public:
  /// Throws Error(usage) if the head's vocabulary is not the backbone's.
  GptDecoder(const GptBackbone& backbone, const NextTokenHead& head,
             const GenerateOptions& options);
  [[nodiscard]] std::int64_t codes() const;
  /// States (B, d) after these rows. Rows of a slot come in the order of their positions; position
  /// 0 begins a new jet in it.
  Tensor step(std::span<const DecodeInput> inputs);
  [[nodiscard]] Tensor token_logits(const Tensor& h) const;  // (B, K + 2)
  /// Undefined: this model draws no particle ids.
  [[nodiscard]] Tensor pid_logits(const Tensor& h, const Tensor& tokens) const;

 private:
  const GptBackbone& backbone_;
  const NextTokenHead& head_;
  BlockCaches caches_;
};

/// Tessera's causal stream, one row a jet and step: [registers][start][particles], where a particle
/// is what the tokenizer's decoder makes of the jet's own codes so far. Keys and values of the
/// registers are the same in each jet: computed once, at construction.
class TesseraDecoder {
 public:
  /// Throws Error(usage) if the tokenizer's codes are not the head's, or if its decoder is not
  /// causal: then the k-th particle depends on codes that are not drawn yet.
  TesseraDecoder(const Backbone& backbone, const PretrainHead& head, const Tokenizer& tokenizer,
                 const GenerateOptions& options);
  [[nodiscard]] std::int64_t codes() const;
  /// As GptDecoder::step; the states are those of the next-token branch.
  Tensor step(std::span<const DecodeInput> inputs);
  [[nodiscard]] Tensor token_logits(const Tensor& h) const;                      // (B, K + 2)
  [[nodiscard]] Tensor pid_logits(const Tensor& h, const Tensor& tokens) const;  // (B, 8)

 private:
  void fill_registers(std::int64_t slots);
  /// Decoder output of the newest code of each jet. (B, 3)
  Tensor decode_particles(std::span<const DecodeInput> particles);
  /// Rows of the stream: start vectors and embedded particles in the order of the inputs. (B, d)
  Tensor stream_rows(std::span<const DecodeInput> inputs);

  const Backbone& backbone_;
  const PretrainHead& head_;
  const Tokenizer& tokenizer_;
  Tensor codebook_;  // (K, D), effective
  BlockCaches stream_, branch_, tokenizer_caches_;
};

/// Draws one jet for each uid, in their order. Each jet leaves its slot at its own stop token or at
/// the particle limit, and the next one takes the slot; only the newest row of a jet passes through
/// the head. Index 0 (start) is never drawn. Throws Error(usage) on options out of range,
/// Error(numeric) if the model gives NaN. After 2.5 of OmniJet-alpha (2403.05618), which recomputes
/// the whole prefix and always runs to the limit; slots and refill are ours.
std::vector<GeneratedJet> generate(const GptBackbone& backbone, const NextTokenHead& head,
                                   std::span<const std::uint64_t> uids,
                                   const GenerateOptions& options,
                                   const GenerateProgress& progress = {});
std::vector<GeneratedJet> generate(const Backbone& backbone, const PretrainHead& head,
                                   const Tokenizer& tokenizer, std::span<const std::uint64_t> uids,
                                   const GenerateOptions& options,
                                   const GenerateProgress& progress = {});

}  // namespace tessera
