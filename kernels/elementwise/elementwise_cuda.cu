// Bound by memory: a thread per element, neighbours side by side.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/elementwise/elementwise_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 256;

// Rounds as the cpu does: products first, then their sum; b is not read where beta is 0.
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    pointwise_kernel(Pointwise kind, float alpha, View<const float, 1> a, float beta,
                     View<const float, 1> b, View<float, 1> out) {
  const std::int64_t i = global_thread();
  if (i >= out.shape[0]) {
    return;
  }
  const float x = ldg(a.data + i);
  if (kind == Pointwise::product) {
    stg(out.data + i, x * ldg(b.data + i));
  } else if (beta == 0.0F) {
    stg(out.data + i, alpha * x);
  } else {
    stg(out.data + i, alpha * x + beta * ldg(b.data + i));
  }
}

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    rowwise_kernel(Pointwise kind, View<const float, 2> x, View<const float, 1> row,
                   View<float, 2> y) {
  const std::int64_t i = global_thread();
  const std::int64_t d = x.shape[1];
  if (i >= x.shape[0] * d) {
    return;
  }
  const auto [r, c] = matrix_place(i, d);
  const float value = ldg(&x(r, c));
  const float factor = ldg(row.data + c);
  stg(&y(r, c), kind == Pointwise::product ? value * factor : value + factor);
}

}  // namespace

void pointwise(Pointwise kind, float alpha, View<const float, 1> a, float beta,
               View<const float, 1> b, View<float, 1> out, Stream stream) {
  if (out.shape[0] > 0) {
    launch(pointwise_kernel,
           {"pointwise", {blocks_for(out.shape[0], kThreads)}, {kThreads}, 0, stream}, kind, alpha,
           a, beta, b, out);
  }
}

void rowwise(Pointwise kind, View<const float, 2> x, View<const float, 1> row, View<float, 2> y,
             Stream stream) {
  if (x.size() > 0) {
    launch(rowwise_kernel, {"rowwise", {blocks_for(x.size(), kThreads)}, {kThreads}, 0, stream},
           kind, x, row, y);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
