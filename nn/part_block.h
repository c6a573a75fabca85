// The block of the Particle Transformer: as self-attention over a jet, and as attention of a class
// token to it.
#pragma once

#include "nn/attention_block.h"

namespace tessera {

/// [cls_j; x_j] for each jet: rows of the table cls | x, and the segments of both sides.
struct WithClass {
  Tensor index;           // (B + T) i32
  Segments queries, all;  // one row a jet; 1 + n_j rows a jet
  explicit WithClass(const Segments& segments);
  /// The learned token (1, d) once for each jet, (B, d).
  [[nodiscard]] Tensor repeat(const Tensor& cls) const;
  /// [cls_j; x_j] of cls (B, d) and x (T, d), (B + T, d).
  [[nodiscard]] Tensor table(const Tensor& cls, const Tensor& x) const;
};

/// a = LN_post(c_attn MHA(LN(x))); r = x + drop(a);
/// y = w_resid r + drop(fc2(LN(drop(GELU(fc1(LN(r))))))), feed-forward width 4 d.
/// c_attn scales the output of each head's channels, w_resid each channel; both are one at start.
/// Source: ParT, Qu, Li, Qian 2022 (2202.03772), after NormFormer.
struct PartBlock : Module {
  struct Config {
    std::int64_t width, heads;
    float dropout = 0;  ///< of probabilities, hidden activations and both branches
  };
  LayerNorm norm1;
  SelfAttention attn;
  Tensor c_attn;  // (H)
  LayerNorm post_norm, norm2;
  Linear fc1;
  LayerNorm fc_norm;
  Linear fc2;
  Tensor w_resid;  // (d)
  Dropout drop;
  PartBlock(const Config& config, Rng& rng);
  /// Self-attention inside each jet, x: (T, d) -> (T, d); bias: (H, pairs) or undefined.
  Tensor operator()(const Tensor& x, const Segments& segments, const Tensor& bias = {},
                    const DropoutStream& dropout = {}) const;
  /// Class attention: the query is cls as it is, keys and values are LN([cls; x]).
  /// cls: (B, d), x: (T, d) -> (B, d)
  [[nodiscard]] Tensor attend(const Tensor& cls, const Tensor& x, const WithClass& rows,
                              const DropoutStream& dropout = {}) const;

 private:
  [[nodiscard]] Tensor finish(const Tensor& x, const Tensor& mixed,
                              const DropoutStream& dropout) const;
};

}  // namespace tessera
