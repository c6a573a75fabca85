// What host and device units of attention share; no host header is reachable from here.
#pragma once

#include <cstdint>

#include "core/rng.h"

namespace tessera {

/// A block's share of a batch: rows [first, first + kAttentionBlock) of a segment.
struct AttentionItem {
  std::int32_t segment, first;
};
inline constexpr int kAttentionBlock = 64;  ///< rows of an item

/// What devices keep between the passes and how they share the work; the cpu needs none of it.
struct AttentionKept {
  const AttentionItem* q_items = nullptr;  ///< all queries, longest segments first
  const AttentionItem* k_items = nullptr;  ///< all keys
  int q_item_count = 0, k_item_count = 0;
  float* lse = nullptr;        ///< (Tq, H): base-2 logarithm of each row's sum of exponentials
  const float* out = nullptr;  ///< (Tq, H, D), backward: the result
  float* delta = nullptr;      ///< (Tq, H), backward: scratch
};

/// Where queries, keys and values of a head lie: row strides in floats, heads D apart. Pointers are
/// those of the device that runs the kernel.
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
