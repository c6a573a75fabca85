// A thread per Philox block, four elements: the bits of the cpu. They travel as one word of 16
// bytes where the addresses allow it; one by one, each access of a warp would touch four times the
// sectors.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "core/rng.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 128;

template <bool aligned>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    apply_kernel(View<const float, 1> x, float p, RngKey key, View<float, 1> y) {
  const std::int64_t first = 4 * global_thread();
  if (first >= y.shape[0]) {
    return;
  }
  const float factor = 1.0F / (1.0F - p);
  const Philox4 block = key.block(static_cast<std::uint64_t>(first / 4));
  const std::uint32_t words[4] = {block.x, block.y, block.z, block.w};
  const auto kept = [&](int e, float value) {
    return uniform_from(words[e]) >= p ? factor * value : 0.0F;
  };
  if (aligned && first + 4 <= y.shape[0]) {
    const auto v = ldg(reinterpret_cast<const Float4*>(x.data + first));
    stg(reinterpret_cast<Float4*>(y.data + first),
        Float4{kept(0, v.x), kept(1, v.y), kept(2, v.z), kept(3, v.w)});
    return;
  }
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    if (first + e < y.shape[0]) {
      stg(y.data + first + e, kept(e, ldg(x.data + first + e)));
    }
  }
}

}  // namespace

void dropout_apply(View<const float, 1> x, float p, RngKey key, View<float, 1> y, Stream stream) {
  if (y.shape[0] > 0) {
    const bool aligned =
        (reinterpret_cast<std::uintptr_t>(x.data) | reinterpret_cast<std::uintptr_t>(y.data)) %
            sizeof(Float4) ==
        0;
    launch(aligned ? apply_kernel<true> : apply_kernel<false>,
           {"dropout_apply", {blocks_for(y.shape[0], 4 * kThreads)}, {kThreads}, 0, stream}, x, p,
           key, y);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
