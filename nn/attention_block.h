// Transformer blocks: NormFormer (tokenizer), post-norm (OmniJet-alpha backbone), pre-norm (Tessera
// backbone). All take packed tokens (T, d) and the segments of their jets; where a block has a
// dropout rate, it acts in training mode on the attention's probabilities and on the hidden layer
// behind it, and takes its numbers from the stream of the call.
#pragma once

#include "core/parallel.h"
#include "core/segments.h"
#include "kernels/decode_attention/decode_attention.h"
#include "nn/dropout.h"
#include "nn/linear.h"

namespace tessera {

/// Multi-head self-attention with packed projections; rows of qkv are q | k | v.
struct SelfAttention : Module {
  struct Config {
    std::int64_t width, heads;
    bool qkv_bias = true;
    float out_scale = 1.0F;
    float dropout = 0;  ///< of the probabilities
  };
  Config config;
  Linear qkv, out;
  Dropout drop;
  SelfAttention(const Config& config, Rng& rng);
  /// Attention inside each segment; `causal_segments` holds one flag a segment, or nothing for
  /// none; `bias` is added to the scores, as attention() takes it.
  Tensor operator()(const Tensor& x, const Segments& segments,
                    std::vector<std::uint8_t> causal_segments = {}, const Tensor& bias = {},
                    const DropoutStream& dropout = {}) const;
  /// One new row for each of some sequences against their cached rows; no gradient.
  Tensor step(const Tensor& x, const KeyValueCache& cache, std::span<const std::int32_t> slots,
              std::span<const std::int32_t> positions) const;
  /// Queries of some rows (Tq, d) to keys and values of others (Tk, d), segment by segment; a
  /// causal query sees the keys up to its own place. (Tq, d)
  [[nodiscard]] Tensor cross(const Tensor& q_rows, const Tensor& kv_rows,
                             const Segments& q_segments, const Segments& kv_segments,
                             std::vector<std::uint8_t> causal_segments = {},
                             const DropoutStream& dropout = {}) const;
};

/// Draws the start of torch.nn.MultiheadAttention: Xavier-uniform on the stacked (3d, d)
/// projection, biases zero.
void start_as_torch(const SelfAttention& attn, Rng& rng);

/// How a block mixes rows: attention inside segments, or of new rows against a cache. The rest of a
/// block acts on single rows, so one formula serves training and incremental decoding.
using Mix = FunctionRef<Tensor(const SelfAttention&, const Tensor& x)>;

/// r = x + LN2(MHA(LN1(x))); y = r + fc2(SiLU(fc1(LN(r)))). The identity at start: LN1 and fc2
/// begin at zero. Source: NormFormer, Shleifer et al. 2021, as OmniJet-alpha uses it.
struct NormFormerBlock : Module {
  struct Mlp : Module {
    LayerNorm norm;  // of the residual before it: the block's business
    Linear fc1, fc2;
    Dropout drop;
    Mlp(std::int64_t width, std::int64_t hidden, float dropout, Rng& rng);
    Tensor operator()(const Tensor& normed, const DropoutStream& dropout = {}) const;
  };
  LayerNorm norm1;
  SelfAttention attn;
  LayerNorm norm2;
  Mlp mlp;
  NormFormerBlock(std::int64_t width, std::int64_t heads, std::int64_t mlp_factor, Rng& rng,
                  float dropout = 0);
  Tensor operator()(const Tensor& x, Mix mix, const DropoutStream& dropout = {}) const;
  Tensor operator()(const Tensor& x, const Segments& segments,
                    const std::vector<std::uint8_t>& causal = {},
                    const DropoutStream& dropout = {}) const;
};

/// Two linear layers with an activation between.
struct FeedForward : Module {
  Linear fc1, fc2;
  Activation activation;
  Dropout drop;
  FeedForward(std::int64_t width, std::int64_t hidden, Activation activation, float out_scale,
              Rng& rng, float dropout = 0);
  Tensor operator()(const Tensor& x, const DropoutStream& dropout = {}) const;
};

/// x = LN1(x + MHA(x)); x = LN2(x + FF(x)); q, k, v without bias. The block of OmniJet-alpha's GPT.
struct PostNormBlock : Module {
  SelfAttention attn;
  FeedForward ff;
  LayerNorm norm1, norm2;
  PostNormBlock(std::int64_t width, std::int64_t heads, Rng& rng, float dropout = 0);
  Tensor operator()(const Tensor& x, Mix mix, const DropoutStream& dropout = {}) const;
  Tensor operator()(const Tensor& x, const Segments& segments,
                    const std::vector<std::uint8_t>& causal,
                    const DropoutStream& dropout = {}) const;
};

/// x += gate1 * MHA(LN(x)); x += gate2 * FF(LN(x)); gates per channel, one at start.
struct PreNormBlock : Module {
  struct Config {
    std::int64_t width, heads, ff_factor = 4;
    float out_scale = 1.0F;
    float dropout = 0;
  };
  LayerNorm norm1;
  SelfAttention attn;
  Tensor gate1;
  LayerNorm norm2;
  FeedForward ff;
  Tensor gate2;
  PreNormBlock(const Config& config, Rng& rng);
  Tensor operator()(const Tensor& x, Mix mix, const DropoutStream& dropout = {}) const;
  Tensor operator()(const Tensor& x, const Segments& segments,
                    const std::vector<std::uint8_t>& causal = {},
                    const DropoutStream& dropout = {}) const;
};

/// One flag for each segment, all set.
std::vector<std::uint8_t> all_causal(const Segments& segments);

}  // namespace tessera
