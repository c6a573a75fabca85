// A warp per row, any width; the passes after the first find the row in the cache.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/softmax/softmax_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 8;

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(SoftmaxKind kind, View<const float, 2> x, View<float, 2> y) {
  const std::int64_t row = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  const std::int64_t c = x.shape[1];
  if (row >= x.shape[0]) {
    return;
  }
  float top = ldg(x.row(row));
  for (std::int64_t j = lane(); j < c; j += 32) {
    top = max(top, ldg(&x(row, j)));
  }
  top = max_over_warp(top);
  float total = 0;
  for (std::int64_t j = lane(); j < c; j += 32) {
    total += exp(ldg(&x(row, j)) - top);
  }
  total = sum_over_warp(total);
  const bool probability = kind == SoftmaxKind::probability;
  const float part = probability ? 1.0F / total : log(total);
  for (std::int64_t j = lane(); j < c; j += 32) {
    const float z = ldg(&x(row, j)) - top;
    stg(&y(row, j), probability ? exp(z) * part : z - part);
  }
}

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    backward_kernel(SoftmaxKind kind, View<const float, 2> dy, View<const float, 2> y,
                    View<float, 2> dx) {
  const std::int64_t row = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  const std::int64_t c = dy.shape[1];
  if (row >= dy.shape[0]) {
    return;
  }
  const bool probability = kind == SoftmaxKind::probability;
  float total = 0;
  for (std::int64_t j = lane(); j < c; j += 32) {
    total = fma(ldg(&dy(row, j)), probability ? ldg(&y(row, j)) : 1.0F, total);
  }
  total = sum_over_warp(total);
  for (std::int64_t j = lane(); j < c; j += 32) {
    const float g = ldg(&dy(row, j));
    const float v = ldg(&y(row, j));
    stg(&dx(row, j), probability ? v * (g - total) : fma(-exp(v), total, g));
  }
}

LaunchConfig rows_config(const char* name, std::int64_t rows, Stream stream) {
  return {name, {blocks_for(rows, kWarps)}, {32 * kWarps}, 0, stream};
}

}  // namespace

void softmax_forward(SoftmaxKind kind, View<const float, 2> x, View<float, 2> y, Stream stream) {
  if (x.size() > 0) {
    launch(forward_kernel, rows_config("softmax_forward", x.shape[0], stream), kind, x, y);
  }
}

void softmax_backward(SoftmaxKind kind, View<const float, 2> dy, View<const float, 2> y,
                      View<float, 2> dx, Stream stream) {
  if (dy.size() > 0) {
    launch(backward_kernel, rows_config("softmax_backward", dy.shape[0], stream), kind, dy, y, dx);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
