// Attention of one new row a sequence against the keys and values that its earlier rows left
// behind: the step of incremental decoding.
#pragma once

#include <cstdint>
#include <span>

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/decode_attention/decode_attention_types.h"

namespace tessera {

/// Keys and values of up to `capacity` rows in each of S slots. Keys lie transposed, so that the
/// scores of a query fill vectors over keys without horizontal sums; a new row is written in place.
struct KeyValueCache {
  Tensor keys;    // (S, H, D, capacity)
  Tensor values;  // (S, H, capacity, D)

  /// Uninitialised: a slot's rows are written before they are read.
  static KeyValueCache create(std::int64_t slots, std::int64_t heads, std::int64_t width,
                              std::int64_t capacity, Device device = kCpu);
};

/// Row i becomes row positions[i] of slot slots[i]: its key and value are written to the cache,
/// then its query attends to rows 0 .. positions[i] of that slot, softmax(scale q k^T) v. Equals
/// row positions[i] of causal attention over the slot's rows. qkv: (B, 3, H, D) f32. Returns (B, H,
/// D). scale 0 means D^-1/2. A result depends on its own slot only, not on B. Throws Error(usage)
/// on shapes that do not fit, on a slot or position outside the cache, on a slot named twice, on
/// devices also if D > 128. The cache is state: written in place. No gradient.
Tensor decode_attention(const Tensor& qkv, const KeyValueCache& cache,
                        std::span<const std::int32_t> slots,
                        std::span<const std::int32_t> positions, float scale = 0);

/// out (B, H, D); keys and values as in KeyValueCache, contiguous.
TESSERA_DECLARE_KERNEL(decode_attention_step, void(const float* qkv, DecodeLayout layout,
                                                   float* keys, float* values, float* out, Stream));

}  // namespace tessera
