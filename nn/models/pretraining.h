// Pre-training objectives: next token (OmniJet-alpha) and joint next-token + masked-particle
// (Tessera).
#pragma once

#include "nn/models/backbone.h"

namespace tessera {

/// Linear(d -> V) over every position and the masked cross-entropy against the next token.
struct NextTokenHead : Module {
  Linear ntp;
  NextTokenHead(std::int64_t width, std::int64_t vocabulary, Rng& rng);
};

struct PretrainConfig {
  std::int64_t codes = 512;
  std::int64_t max_particles = 32;  ///< rows of the mask table
  float mask_fraction = 0.4F;
};

/// The two losses of one batch, each the mean over its own scored rows.
struct PretrainOutput {
  Tensor loss;  // scalar: (code + particle id) of both objectives
  // Scalars without history: cross-entropy of the code alone, nats, comparable with the unigram
  // entropy.
  Tensor ntp_code, mpm_code;
};

/// Which particles of each jet are hidden: round(fraction * n), at least 1 if n >= 2, never all; by
/// (key, jet).
std::vector<std::uint8_t> choose_masks(const Segments& segments, float fraction, const Rng& rng);

/// Joint next-token and masked-particle prediction in one packed pass. Each jet gives two segments:
/// causal over all particles (token resolution, no context) and bidirectional over the survivors
/// (raw, with context). Source: masked removal after Kishimoto et al. (MPMv2, 2409.12589); joint
/// objective after 2512.04149.
class PretrainHead : public Module {
 public:
  PretrainConfig config;
  PretrainHead(std::int64_t width, std::int64_t heads, const PretrainConfig& config, Rng& rng);

  /// token_features: what the causal stream sees; raw_features: what the other sees; codes: (T)
  /// i32; hidden: one flag a particle.
  PretrainOutput operator()(const Backbone& backbone, const ParticleFeatures& token_features,
                            const ParticleFeatures& raw_features, const Tensor& codes,
                            const std::vector<std::uint8_t>& hidden,
                            const DropoutStream& dropout = {}) const;

  // The next-token branch in parts, for incremental decoding: block, norm, scores.
  [[nodiscard]] const PreNormBlock& ntp_block() const { return ntp_.block; }
  [[nodiscard]] const LayerNorm& ntp_norm() const { return ntp_.norm; }
  /// Scores of the next token, (N, K + 2), of the branch's states h (N, d).
  [[nodiscard]] Tensor token_logits(const Tensor& h) const;
  /// Scores of the particle ids 0..7 given the token, (N, 8): P LN(h + sg(U[token])). tokens: (N)
  /// i32.
  [[nodiscard]] Tensor pid_logits(const Tensor& h, const Tensor& tokens) const;

 private:
  struct Branch : Module {
    PreNormBlock block;
    LayerNorm norm;
    Branch(std::int64_t width, std::int64_t heads, Rng& rng);
    Tensor operator()(const Tensor& x, const Segments& segments,
                      const std::vector<std::uint8_t>& causal) const;
  };
  struct Unembed : Module {
    Tensor weight, bias;  // (K + 2, d), (K + 2)
    Unembed(std::int64_t rows, std::int64_t width, Rng& rng);
  };
  struct Score {
    Tensor loss, code;
  };
  [[nodiscard]] Score score(const Tensor& h, const Tensor& codes,
                            const std::vector<std::int32_t>& targets,
                            const std::vector<std::int32_t>& pid) const;

  Branch ntp_, mpm_;
  Unembed unembed_;
  LayerNorm pid_norm_;
  Linear pid_;
  Tensor mask_;  // (max_particles, d)
};

}  // namespace tessera
