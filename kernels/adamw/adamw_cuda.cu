// One streaming pass over the flat buffers, 28 bytes a parameter, and the norm in fixed blocks.
#include <bit>

#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/adamw/adamw_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 256;

constexpr int kItems = kSquaredNormBlock / kThreads;

struct NormSmem {
  float top[kThreads / 32], sum[kThreads / 32];
};

// The power of two that brings x, not negative, into [1, 2), or near it at the ends of the range;
// infinity and NaN stay what they are when multiplied by it.
TESSERA_DEVICE float inverse_power(float x) {
  constexpr std::uint32_t kMost = 253;
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(x) >> 23U;
  return std::bit_cast<float>((254U - (exponent < kMost ? exponent : kMost)) << 23U);
}

// 16 squares a thread, then the warp by halves, then the warps in order.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    norm_kernel(View<const float, 1> x, View<float, 2> out) {
  TESSERA_SMEM(NormSmem, s);
  const std::int64_t begin =
      static_cast<std::int64_t>(block_idx().x) * kSquaredNormBlock + linear_thread();
  float value[kItems];
  float top = 0;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const std::int64_t at = begin + i * kThreads;
    value[i] = at < x.shape[0] ? ldg(x.data + at) : 0.0F;
    top = max(top, value[i] < 0 ? -value[i] : value[i]);
  }
  top = max_over_warp(top);
  if (lane() == 0) {
    s.top[warp()] = top;
  }
  sync_block();
  for (const float other : s.top) {
    top = max(top, other);
  }
  const float power = inverse_power(top);
  float total = 0;
  TESSERA_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const float scaled = value[i] * power;
    total = fma(scaled, scaled, total);
  }
  total = sum_over_warp(total);
  if (lane() == 0) {
    s.sum[warp()] = total;
  }
  sync_block();
  if (linear_thread() == 0) {
    float merged = 0;
    for (const float part : s.sum) {
      merged += part;
    }
    stg(&out(0, block_idx().x), merged);
    stg(&out(1, block_idx().x), power);
  }
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    update_kernel(View<float, 1> p, View<const float, 1> g, View<float, 1> m, View<float, 1> v,
                  AdamWUpdate u) {
  const std::int64_t i = global_thread();
  if (i >= p.shape[0]) {
    return;
  }
  const float gradient = u.clip * ldg(g.data + i);
  const float mi = fma(u.beta1, ldg(m.data + i), (1.0F - u.beta1) * gradient);
  const float vi = fma(u.beta2, ldg(v.data + i), (1.0F - u.beta2) * (gradient * gradient));
  const float root = fma(sqrt(vi), u.root_correction, u.eps);
  stg(p.data + i, u.decay * ldg(p.data + i) - u.step_size * mi / root);
  stg(m.data + i, mi);
  stg(v.data + i, vi);
}

}  // namespace

void squared_norm_blocks(View<const float, 1> x, View<float, 2> out, Stream stream) {
  if (out.shape[1] > 0) {
    launch(norm_kernel,
           {"squared_norm_blocks",
            {static_cast<unsigned>(out.shape[1])},
            {kThreads},
            sizeof(NormSmem),
            stream},
           x, out);
  }
}

void adamw_update(View<float, 1> p, View<const float, 1> g, View<float, 1> m, View<float, 1> v,
                  AdamWUpdate update, Stream stream) {
  if (p.shape[0] > 0) {
    launch(update_kernel,
           {"adamw_update", {blocks_for(p.shape[0], kThreads)}, {kThreads}, 0, stream}, p, g, m, v,
           update);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
