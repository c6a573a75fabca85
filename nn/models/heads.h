// Heads on a backbone's hidden states: sum pooling and class attention.
#pragma once

#include <memory>

#include "core/segments.h"
#include "nn/models/deep_sets.h"
#include "nn/part_block.h"

namespace tessera {

/// Linear(ReLU(Linear(h))) summed over the tokens of a jet: e = ReLU(W1 h), sum, W2.
/// (OmniJet-alpha, 3.1 "sum")
struct SumHead : Module {
  Linear fc1, fc2;
  SumHead(std::int64_t width, std::int64_t outputs, Rng& rng);
  /// h: (T, d) -> (B, outputs); an empty jet gives the bias.
  Tensor operator()(const Tensor& h, const Segments& segments) const;
};

/// Particle blocks on the jet, then a learned class token that attends to it through `blocks` class
/// blocks, then LN and Linear(d -> outputs). An empty jet's token attends to itself. The tau head
/// of the reference (HEP-KBFI/ml-tau-en-reg) has two blocks of each kind.
struct ClassAttentionHead : Module {
  struct Config {
    std::int64_t width, heads, outputs;
    std::int64_t blocks = 1;           ///< class blocks
    std::int64_t particle_blocks = 0;  ///< in front of them
    float dropout = 0;                 ///< of the particle blocks; the class blocks have none
  };
  Tensor cls;  // (1, d)
  std::vector<std::unique_ptr<PartBlock>> particle_blocks, blocks;
  LayerNorm norm;
  Linear fc;
  ClassAttentionHead(const Config& config, Rng& rng);
  /// h: (T, d) -> (B, outputs). bias: (H, pairs) for the particle blocks, as attention() takes it.
  Tensor operator()(const Tensor& h, const Segments& segments, const Tensor& bias = {},
                    const DropoutStream& dropout = {}) const;
};

}  // namespace tessera
