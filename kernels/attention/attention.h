// Ragged attention: every segment of a packed batch attends to itself, or to a segment of another
// batch.
#pragma once

#include <cstdint>
#include <vector>

#include "core/kernel.h"
#include "core/rng.h"
#include "core/segments.h"
#include "kernels/attention/attention_types.h"

namespace tessera {

struct AttentionOptions {
  bool causal = false;
  std::vector<std::uint8_t>
      causal_segments{};  ///< one flag a segment; overrides `causal` where given
  float scale = 0;        ///< 0 means D^-1/2
  float dropout = 0;      ///< share of probabilities set to zero, in [0, 1); the rest grow
  RngKey key{};           ///< of the dropout; the element is the index into a bias of this batch
  Tensor bias{};          ///< added to the scores: (H, sum_b Lq_b Lk_b), each segment's (Lq, Lk)
                          ///< block row-major, segments one after the other; or undefined
};

/// Scaled dot-product attention per segment: dropout(softmax(q k^T scale + bias)) v; scores are
/// never stored. qkv: (T, 3, H, D) f32 or bf16; segments over T. Returns (T, H, D), dtype of qkv.
/// Empty segments yield no row; a segment never reads another's rows. bf16 accumulates in f32; the
/// cpu converts to f32 and back. Throws Error(usage) if the last offset is not T, on devices also
/// if D > 64. Differentiable in qkv and bias; the backward pass recomputes probabilities and
/// dropout from inputs and key. Vaswani et al. 2017.
Tensor attention(const Tensor& qkv, const Segments& segments, const AttentionOptions& options = {});

/// The same with queries (Tq, H, D) of their own segments and keys and values (Tk, 2, H, D): one
/// query for class tokens. A segment without keys gives zero rows. Differentiable in q, kv and
/// bias.
Tensor cross_attention(const Tensor& q, const Tensor& kv, const Segments& q_segments,
                       const Segments& kv_segments, const AttentionOptions& options = {});

/// out (Tq, H, D) of q, k, v.
TESSERA_DECLARE_KERNEL(attention_forward, void(const float* q, const float* k, const float* v,
                                               AttentionLayout layout, float* out, Stream));
/// dq, dk, dv with the strides of q, k, v; overwritten in the rows of every segment. dbias is that
/// of the bias (H, pairs), or null.
TESSERA_DECLARE_KERNEL(attention_backward,
                       void(const float* q, const float* k, const float* v, const float* dout,
                            AttentionLayout layout, float* dq, float* dk, float* dv, float* dbias,
                            Stream));

/// The same of bf16 on devices; the cpu has no kernel.
using attention_forward_bf16_signature = void(const bf16* q, const bf16* k, const bf16* v,
                                              AttentionLayout layout, bf16* out, Stream);
using attention_backward_bf16_signature = void(const bf16* q, const bf16* k, const bf16* v,
                                               const bf16* dout, AttentionLayout layout, bf16* dq,
                                               bf16* dk, bf16* dv, float* dbias, Stream);
namespace cu {
attention_forward_bf16_signature attention_forward_bf16;
attention_backward_bf16_signature attention_backward_bf16;
}  // namespace cu
namespace simt {
attention_forward_bf16_signature attention_forward_bf16;
attention_backward_bf16_signature attention_backward_bf16;
}  // namespace simt

}  // namespace tessera
