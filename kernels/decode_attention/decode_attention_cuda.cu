// A warp per (row, head). It writes the new key and value to the cache, then meets the keys 32 at a
// time, one a lane, and adds the values in order; the softmax is corrected as the maximum grows.
// Keys lie transposed and values row by row, so both are read in whole sectors, each once: 8 H D
// bytes a cached row, bound by memory.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/decode_attention/decode_attention_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 4;
constexpr int kMostItems = 4;  // values of a head per lane
constexpr float kLog2E = 1.44269504F;
constexpr float kNever = -__builtin_huge_valf();

/// One head of one row and its part of the cache.
struct Step {
  const float *q, *k, *v;
  float *keys, *values, *out;  // (D, capacity), (capacity, D), (D)
  std::int64_t position, width, capacity;
};

TESSERA_DEVICE Step step_of(const float* qkv, const DecodeLayout& l, std::int64_t task, float* keys,
                            float* values, float* out) {
  const std::int64_t i = task / l.heads;
  const std::int64_t head = task % l.heads;
  const std::int64_t row = l.heads * l.width;
  const float* q = qkv + i * 3 * row + head * l.width;
  const std::int64_t cached = (ldg(l.slots + i) * l.heads + head) * l.capacity * l.width;
  return {q,
          q + row,
          q + 2 * row,
          keys + cached,
          values + cached,
          out + i * row + head * l.width,
          ldg(l.positions + i),
          l.width,
          l.capacity};
}

// The new row becomes part of the cache before the warp reads it back.
TESSERA_DEVICE void append(const Step& s) {
  for (std::int64_t d = lane(); d < s.width; d += 32) {
    stg(s.keys + d * s.capacity + s.position, ldg(s.k + d));
    stg(s.values + s.position * s.width + d, ldg(s.v + d));
  }
  sync_warp();
}

// The head's query, a number a lane and item: read by each lane at every key, it would be a sector
// for each of its numbers.
template <int kItems>
TESSERA_DEVICE void load_query(const Step& s, float (&query)[kItems]) {
  TESSERA_UNROLL
  for (int m = 0; m < kItems; ++m) {
    const std::int64_t d = lane() + 32 * m;
    query[m] = d < s.width ? ldg(s.q + d) : 0.0F;
  }
}

// The score of this lane's key, -inf beyond the position.
template <int kItems>
TESSERA_DEVICE float score_of(const Step& s, const float (&query)[kItems], std::int64_t key,
                              float slope) {
  const bool present = key <= s.position;
  const float* keys = s.keys + key;
  float dot = 0;
  TESSERA_UNROLL
  for (int m = 0; m < kItems; ++m) {
    const std::int64_t left = s.width - 32 * m;
    for (int d = 0; d < (left < 32 ? left : 32); ++d, keys += s.capacity) {
      const float q = shfl_idx(query[m], d);
      dot = present ? fma(q, ldg(keys), dot) : 0.0F;
    }
  }
  return present ? dot * slope : kNever;
}

template <int kItems>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps, 8)
    step_kernel(const float* qkv, DecodeLayout l, float* keys, float* values, float* out) {
  const std::int64_t task = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (task >= l.rows * l.heads) {
    return;  // a whole warp, and no barrier follows
  }
  const Step s = step_of(qkv, l, task, keys, values, out);
  append(s);
  float query[kItems];
  load_query(s, query);
  float top = kNever;
  float sum = 0;  // this lane's keys
  float result[kItems] = {};
  for (std::int64_t first = 0; first <= s.position; first += 32) {
    const float score = score_of(s, query, first + lane(), l.scale * kLog2E);
    const float before = top;
    top = max(top, max_over_warp(score));
    const float shift = top == kNever ? 0.0F : top;
    const float shrink = ex2(before - shift);
    const float p = ex2(score - shift);
    sum = fma(sum, shrink, p);
    TESSERA_UNROLL
    for (int m = 0; m < kItems; ++m) {
      result[m] *= shrink;
    }
    const std::int64_t left = s.position + 1 - first;
    for (int j = 0; j < (left < 32 ? left : 32); ++j) {
      const float share = shfl_idx(p, j);
      TESSERA_UNROLL
      for (int m = 0; m < kItems; ++m) {
        const std::int64_t d = lane() + 32 * m;
        result[m] =
            d < s.width ? fma(share, ldg(s.values + (first + j) * s.width + d), result[m]) : 0.0F;
      }
    }
  }
  sum = sum_over_warp(sum);
  TESSERA_UNROLL
  for (int m = 0; m < kItems; ++m) {
    if (lane() + 32 * m < s.width) {
      stg(s.out + lane() + 32 * m, result[m] / sum);
    }
  }
}

}  // namespace

void decode_attention_step(const float* qkv, DecodeLayout l, float* keys, float* values, float* out,
                           Stream stream) {
  const std::int64_t tasks = l.rows * l.heads;
  if (tasks * l.width == 0) {
    return;
  }
  const LaunchConfig config{
      "decode_attention_step", {blocks_for(tasks, kWarps)}, {32 * kWarps}, 0, stream};
  if (l.width <= 32) {
    launch(step_kernel<1>, config, qkv, l, keys, values, out);
  } else if (l.width <= 32 * kMostItems) {
    launch(step_kernel<kMostItems>, config, qkv, l, keys, values, out);
  } else {
    tessera::detail::throw_no_kernel("decode_attention with heads wider than 128", kDevice);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
