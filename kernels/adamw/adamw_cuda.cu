// One streaming pass over the flat buffers, 28 bytes a parameter, and the norm in fixed blocks.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/adamw/adamw_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 256;

struct NormSmem {
  float part[kThreads / 32];
};

// 16 squares a thread, then the warp by halves, then the warps in order.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    norm_kernel(View<const float, 1> x, View<float, 1> out) {
  TESSERA_SMEM(NormSmem, s);
  const std::int64_t begin = static_cast<std::int64_t>(block_idx().x) * kSquaredNormBlock;
  float total = 0;
  for (std::int64_t i = linear_thread(); i < kSquaredNormBlock; i += kThreads) {
    const float value = begin + i < x.shape[0] ? ldg(x.data + begin + i) : 0.0F;
    total = fma(value, value, total);
  }
  total = sum_over_warp(total);
  if (lane() == 0) {
    s.part[warp()] = total;
  }
  sync_block();
  if (linear_thread() == 0) {
    float merged = 0;
    for (const float part : s.part) {
      merged += part;
    }
    stg(out.data + block_idx().x, merged);
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

void squared_norm_blocks(View<const float, 1> x, View<float, 1> out, Stream stream) {
  if (out.shape[0] > 0) {
    launch(norm_kernel,
           {"squared_norm_blocks",
            {static_cast<unsigned>(out.shape[0])},
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
