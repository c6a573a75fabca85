// Heads on a backbone's hidden states: sum pooling and class attention.
#pragma once

#include <memory>

#include "core/segments.h"
#include "nn/attention_block.h"

namespace tessera {

/// Linear(ReLU(Linear(h))) summed over the tokens of a jet: e = ReLU(W1 h), sum, W2.
/// (OmniJet-alpha, 3.1 "sum")
struct SumHead : Module {
  Linear fc1, fc2;
  SumHead(std::int64_t width, std::int64_t outputs, Rng& rng);
  /// h: (T, d) -> (B, outputs); an empty jet gives the bias.
  Tensor operator()(const Tensor& h, const Segments& segments) const;
};

/// One class-attention block: q = cls, kv = LN([cls; x]), residual on cls, then a feed-forward. The
/// block of ParT (Qu, Li, Qian 2022) with per-head scales c_attn and per-channel residual weights.
struct ClassBlock : Module {
  std::int64_t heads;
  LayerNorm norm1;
  SelfAttention attn;  // only its projections are used
  Tensor c_attn;       // (H)
  LayerNorm post_norm, norm2;
  Linear fc1;
  LayerNorm fc_norm;
  Linear fc2;
  Tensor w_resid;  // (d)
  ClassBlock(std::int64_t width, std::int64_t heads, Rng& rng);
  /// cls: (B, d), x: (T, d) -> (B, d)
  Tensor operator()(const Tensor& cls, const Tensor& x, const Segments& segments) const;
};

/// A learned class token that attends to the jet through `blocks` class blocks, then LN and
/// Linear(d -> outputs).
struct ClassAttentionHead : Module {
  struct Config {
    std::int64_t width, heads, outputs, blocks = 1;
  };
  Tensor cls;  // (1, d)
  std::vector<std::unique_ptr<ClassBlock>> blocks;
  LayerNorm norm;
  Linear fc;
  ClassAttentionHead(const Config& config, Rng& rng);
  Tensor operator()(const Tensor& h, const Segments& segments) const;  // (B, outputs)
};

/// DeepSets / particle-flow network: F(pool_i phi(x_i)). The individual method at low cost.
/// Source: Komiske, Metodiev, Thaler 2018 (1810.05165); widths of the tau reference.
struct DeepSets : Module {
  std::vector<std::unique_ptr<Linear>> phi, rho;
  DeepSets(std::int64_t features, std::int64_t width, std::int64_t outputs, Rng& rng);
  Tensor operator()(const Tensor& x,
                    const Segments& segments) const;  // (T, features) -> (B, outputs)
};

}  // namespace tessera
