// The class-attention classifier of OmniJet-alpha as published, quirks included.
#pragma once

#include <memory>

#include "nn/part_block.h"

namespace tessera {

/// cls = MHA(q = cls, kv = LN([cls; x])) three times, then Linear-SiLU-Linear-SiLU-Linear. The
/// class token has no residual, so each block replaces it; the LN weights begin at zero. What the
/// published class also holds but never calls (an input projection, and LN and MLP of each block,
/// 463 616 of 1 387 010 parameters at width 256) is left out. Source: uhh-pd-ml/omnijet_alpha.
struct ClassAttentionRef : Module {
  struct Config {
    std::int64_t width = 256, outputs = 2, heads = 2, blocks = 3;
    float dropout = 0;  ///< after both SiLU; 0.1 as published
  };
  struct Block : Module {
    LayerNorm norm;
    SelfAttention attn;
    Block(std::int64_t width, std::int64_t heads, Rng& rng);
  };
  Tensor cls;  // (1, d), N(0, 1) at start
  std::vector<std::unique_ptr<Block>> blocks;
  Linear fc1, fc2, fc3;
  Dropout drop;
  ClassAttentionRef(const Config& config, Rng& rng);
  /// h: (T, d) -> (B, outputs); an empty jet's token sees itself.
  Tensor operator()(const Tensor& h, const Segments& segments,
                    const DropoutStream& dropout = {}) const;
};

}  // namespace tessera
