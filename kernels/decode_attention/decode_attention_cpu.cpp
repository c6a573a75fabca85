// One chunk per (row, head). A step reads each cached key and value once, 8 H D bytes a cached row,
// and does as many multiply-adds as it reads floats: bound by memory, so neither keys nor values
// are copied or transposed again. The order of sums depends on the position alone.
#include "kernels/decode_attention/decode_attention.h"

#include <vector>

#include "core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/decode_attention/decode_attention_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/simd-inl.h"

#ifndef TESSERA_DECODE_ATTENTION_ONCE
#define TESSERA_DECODE_ATTENTION_ONCE
namespace tessera::cpu {
/// One head of one row: its query, key, value; the slot's cache of this head; scratch.
struct DecodeTask {
  const float *q, *k, *v;
  float *keys, *values;  // (D, capacity), (capacity, D)
  std::int64_t position, width, capacity;
  float scale;
  float* p;  // (capacity)
};
}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

void DecodeHead(const DecodeTask& t, float* out) {
  for (std::int64_t d = 0; d < t.width; ++d) {
    t.keys[d * t.capacity + t.position] = t.k[d];
    t.values[t.position * t.width + d] = t.v[d];
  }
  const std::int64_t n = t.position + 1;
  VectorMatrix(t.q, t.width, t.keys, t.capacity, n, t.scale, t.p);
  const float sum = ExpSum(t.p, n, Largest(t.p, n));
  VectorMatrix(t.p, n, t.values, t.width, t.width, 1.0F / sum, out);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(DecodeHead);

void decode_attention_step(const float* qkv, DecodeLayout l, float* keys, float* values, float* out,
                           Stream) {
  const std::int64_t row = l.heads * l.width, head_size = l.capacity * l.width;
  parallel_for(l.rows * l.heads, [&](std::int64_t chunk) {
    const std::int64_t i = chunk / l.heads, head = chunk % l.heads;
    const float* q = qkv + i * 3 * row + head * l.width;
    const std::int64_t cached = (l.slots[i] * l.heads + head) * head_size;
    thread_local std::vector<float> scratch;
    scratch.resize(static_cast<std::size_t>(l.capacity));
    const DecodeTask task{.q = q,
                          .k = q + row,
                          .v = q + 2 * row,
                          .keys = keys + cached,
                          .values = values + cached,
                          .position = l.positions[i],
                          .width = l.width,
                          .capacity = l.capacity,
                          .scale = l.scale,
                          .p = scratch.data()};
    HWY_DYNAMIC_DISPATCH(DecodeHead)(task, out + i * row + head * l.width);
  });
}

}  // namespace tessera::cpu
#endif
