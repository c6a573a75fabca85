// A thread per Philox block, four elements: the bits of the cpu.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "core/rng.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 128;

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    apply_kernel(View<const float, 1> x, float p, RngKey key, View<float, 1> y) {
  const std::int64_t first = 4 * global_thread();
  if (first >= y.shape[0]) {
    return;
  }
  const float factor = 1.0F / (1.0F - p);
  const Philox4 block = key.block(static_cast<std::uint64_t>(first / 4));
  const std::uint32_t words[4] = {block.x, block.y, block.z, block.w};
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    if (first + e < y.shape[0]) {
      stg(y.data + first + e,
          uniform_from(words[e]) >= p ? factor * ldg(x.data + first + e) : 0.0F);
    }
  }
}

}  // namespace

void dropout_apply(View<const float, 1> x, float p, RngKey key, View<float, 1> y, Stream stream) {
  if (y.shape[0] > 0) {
    launch(apply_kernel,
           {"dropout_apply", {blocks_for(y.shape[0], 4 * kThreads)}, {kThreads}, 0, stream}, x, p,
           key, y);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
