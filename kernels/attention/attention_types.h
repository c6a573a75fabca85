// What host and device units of attention share; no host header is reachable from here.
#pragma once

#include <cstdint>

#include "core/rng.h"

namespace tessera {

/// A segment of up to 128 queries and keys is one block's work, one of three sizes of it by the
/// longer of the two; of longer ones a block takes 128 rows.
inline constexpr int kAttentionClasses = 3;
inline constexpr int kAttentionRows[kAttentionClasses] = {128, 64, 32};
inline constexpr int kAttentionBlock = kAttentionRows[0];

/// What a device must know of a segment, written by the host: one sector for each block.
struct alignas(16) AttentionPlace {
  std::int32_t q0, k0, queries, keys;  ///< first rows, lengths
};
struct alignas(16) AttentionPart {
  std::int64_t pair;           ///< where the segment's pairs begin
  std::int32_t first, causal;  ///< first row of the block
};
struct AttentionItem {
  AttentionPlace place;
  AttentionPart part;
};

/// What devices keep between the passes and how they share the work; the cpu needs none of it.
struct AttentionKept {
  const AttentionItem* items = nullptr;     ///< segments of the classes, longest first
  const AttentionItem* q_blocks = nullptr;  ///< of longer segments: all queries
  const AttentionItem* k_blocks = nullptr;  ///< all keys
  int item_counts[kAttentionClasses] = {};
  int q_block_count = 0, k_block_count = 0;
  std::int64_t queries = 0, pairs = 0;  ///< of the batch
  float* lse = nullptr;                 ///< (H, Tq): base-2 logarithm of each row's sum
  const void* out = nullptr;            ///< (Tq, H, D), backward: the result
  float* delta = nullptr;               ///< (H, Tq), backward of longer segments: scratch
};

/// Where queries, keys and values of a head lie: row strides in elements, heads D apart. Pointers
/// are those of the device that runs the kernel.
struct AttentionLayout {
  std::int64_t heads, width, q_stride, kv_stride;
  float scale;
  const std::int32_t* q_offsets;
  const std::int32_t* kv_offsets;
  const std::uint8_t* causal;  ///< one flag a segment, or null
  int segments;
  const float* bias = nullptr;                 ///< (H, pairs) or null
  const std::int64_t* pair_offsets = nullptr;  ///< where a segment's pairs begin; (segments + 1)
  float dropout = 0;
  RngKey key{};
  AttentionKept kept{};
};

}  // namespace tessera
