// Backbones: OmniJet-alpha's GPT over tokens, and Tessera's pre-norm transformer over continuous
// particles.
#pragma once

#include <memory>

#include "core/segments.h"
#include "nn/attention_block.h"

namespace tessera {

struct GptConfig {
  std::int64_t vocabulary = 8194, width = 256, blocks = 3, heads = 8;
  float dropout = 0;  ///< of every block, in training mode
};

/// Post-norm GPT, no positional encoding: order enters through the causal mask and the pT ordering.
class GptBackbone : public Module {
 public:
  GptConfig config;
  GptBackbone(const GptConfig& config, Rng& rng);
  /// ids: (T) i32 token ids -> hidden states (T, d); always causal.
  Tensor operator()(const Tensor& ids, const Segments& segments,
                    const DropoutStream& dropout = {}) const;

  // The parts, for incremental decoding.
  [[nodiscard]] Tensor embed(const Tensor& ids) const { return embed_.token(ids); }  // (T, d)
  [[nodiscard]] const std::vector<std::unique_ptr<PostNormBlock>>& blocks() const {
    return blocks_;
  }

 private:
  struct Embed : Module {
    Embedding token;
    Embed(const GptConfig& config, Rng& rng);
  };
  Embed embed_;
  std::vector<std::unique_ptr<PostNormBlock>> blocks_;
};

/// Transformed inputs of a batch of jets.
struct ParticleFeatures {
  Segments segments;
  Tensor core;           // (T, 3): ln pT - 1.8, 3 d eta, 3 d phi
  Tensor pid;            // (T) i32 in 0..8
  Tensor context;        // (T, 9); undefined where the stream may not see it
  Tensor pid_on_host{};  // pid before it went to a device; undefined where only the device has it
};

struct BackboneConfig {
  std::int64_t width = 128, blocks = 6, heads = 8, registers = 4;
  std::int64_t pid_classes = 9, context_features = 9;
  float dropout = 0;  ///< of every block, in training mode; 0.1 when fine-tuning with few labels
};

/// Pre-norm transformer over continuous particles with registers in front of each segment.
class Backbone : public Module {
 public:
  BackboneConfig config;
  Tensor registers, start;  // (R, d), (1, d)
  Backbone(const BackboneConfig& config, Rng& rng);

  /// x = W core + E_pid[pid] + W_ctx context (left out where undefined). (T, d)
  [[nodiscard]] Tensor embed(const ParticleFeatures& features) const;
  /// Runs blocks and the final norm over packed rows. (T', d)
  [[nodiscard]] Tensor run(const Tensor& rows, const Segments& segments,
                           const std::vector<std::uint8_t>& causal,
                           const DropoutStream& dropout = {}) const;
  /// Bidirectional pass: registers are added, and dropped from the result. (T, d)
  Tensor operator()(const ParticleFeatures& features, const DropoutStream& dropout = {}) const;

  // The parts of run(), for incremental decoding.
  [[nodiscard]] const std::vector<std::unique_ptr<PreNormBlock>>& blocks() const { return blocks_; }
  [[nodiscard]] const LayerNorm& norm() const { return norm_; }

 private:
  struct Embed : Module {
    Linear core;
    Embedding pid;
    Linear ctx;
    Embed(const BackboneConfig& config, Rng& rng);
  };
  Embed embed_;
  std::vector<std::unique_ptr<PreNormBlock>> blocks_;
  LayerNorm norm_;
};

}  // namespace tessera
