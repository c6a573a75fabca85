// A thread per Philox block, four elements, f32 or bf16: the bits of the cpu. They travel as one
// word of 16 or 8 bytes where the addresses allow it; one by one, each access of a warp would touch
// four times the sectors.
#include "core/gpu/quad.cuh"
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "core/rng.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 128;

template <class T>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    apply_kernel(View<const T, 1> x, float p, RngKey key, View<T, 1> y) {
  const std::int64_t first = 4 * global_thread();
  if (first >= y.shape[0]) {
    return;
  }
  const float factor = 1.0F / (1.0F - p);
  const Philox4 block = key.block(static_cast<std::uint64_t>(first / 4));
  const std::uint32_t words[4] = {block.x, block.y, block.z, block.w};
  const bool aligned = quads_are_aligned(x) && quads_are_aligned(y);
  const std::int64_t left = y.shape[0] - first;
  Quad q = load_quad(x.data + first, left, aligned);
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    q.x[e] = uniform_from(words[e]) >= p ? factor * q.x[e] : 0.0F;
  }
  store_quad(y.data + first, q, left, aligned);
}

template <class T>
void apply(View<const T, 1> x, float p, RngKey key, View<T, 1> y, Stream stream) {
  if (y.shape[0] > 0) {
    launch(apply_kernel<T>,
           {"dropout_apply", {blocks_for(y.shape[0], 4 * kThreads)}, {kThreads}, 0, stream}, x, p,
           key, y);
  }
}

}  // namespace

void dropout_apply(View<const float, 1> x, float p, RngKey key, View<float, 1> y, Stream stream) {
  apply(x, p, key, y, stream);
}

void dropout_apply_bf16(View<const bf16, 1> x, float p, RngKey key, View<bf16, 1> y,
                        Stream stream) {
  apply(x, p, key, y, stream);
}

}  // namespace tessera::TESSERA_GPU_NS
