// A warp per row. Backward: one owner for each row of dx, so no atomics and one order.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(View<const float, 2> x, View<const std::int32_t, 1> index, View<float, 2> y) {
  const std::int64_t i = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (i >= y.shape[0]) {
    return;
  }
  const std::int32_t from = ldg(index.data + i);
  for (std::int64_t j = lane(); j < y.shape[1]; j += 32) {
    stg(&y(i, j), ldg(&x(from, j)));
  }
}

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    backward_kernel(View<const float, 2> dy, View<const std::int32_t, 1> starts,
                    View<const std::int32_t, 1> order, View<float, 2> dx) {
  const std::int64_t n = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  if (n >= dx.shape[0]) {
    return;
  }
  const std::int32_t begin = ldg(starts.data + n);
  const std::int32_t end = ldg(starts.data + n + 1);
  for (std::int64_t j = lane(); j < dx.shape[1]; j += 32) {
    float sum = 0;
    for (std::int32_t i = begin; i < end; ++i) {
      sum += ldg(&dy(ldg(order.data + i), j));
    }
    stg(&dx(n, j), sum);
  }
}

}  // namespace

void gather_forward(View<const float, 2> x, View<const std::int32_t, 1> index, View<float, 2> y,
                    Stream stream) {
  if (y.shape[0] > 0) {
    launch(forward_kernel,
           {"gather_forward", {blocks_for(y.shape[0], kWarps)}, {32 * kWarps}, 0, stream}, x, index,
           y);
  }
}

void gather_backward(View<const float, 2> dy, View<const std::int32_t, 1> starts,
                     View<const std::int32_t, 1> order, View<float, 2> dx, Stream stream) {
  if (dx.shape[0] > 0) {
    launch(backward_kernel,
           {"gather_backward", {blocks_for(dx.shape[0], kWarps)}, {32 * kWarps}, 0, stream}, dy,
           starts, order, dx);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
