// Bound by memory: a thread has four neighbouring elements, f32 or bf16, and works on them in f32.
#include "core/gpu/quad.cuh"
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/elementwise/elementwise_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 256;

// Rounds as the cpu does: products first, then their sum; b is not read where beta is 0.
template <class T>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    pointwise_kernel(Pointwise kind, float alpha, View<const T, 1> a, float beta,
                     View<const T, 1> b, View<T, 1> out) {
  const std::int64_t first = 4 * global_thread();
  const std::int64_t left = out.shape[0] - first;
  if (left <= 0) {
    return;
  }
  const bool reads_b = kind == Pointwise::product || beta != 0.0F;
  const bool aligned = quads_are_aligned(a) && quads_are_aligned(b) && quads_are_aligned(out);
  Quad x = load_quad(a.data + first, left, aligned);
  const Quad y = load_quad(b.data + first, reads_b ? left : 0, aligned);
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    if (kind == Pointwise::product) {
      x.x[e] = x.x[e] * y.x[e];
    } else {
      x.x[e] = reads_b ? alpha * x.x[e] + beta * y.x[e] : alpha * x.x[e];
    }
  }
  store_quad(out.data + first, x, left, aligned);
}

// Threads of a row: a thread has a quad of one row.
TESSERA_DEVICE std::int64_t quads_of(std::int64_t d) { return (d + 3) / 4; }

template <class T>
TESSERA_GLOBAL void __launch_bounds__(kThreads)
    rowwise_kernel(Pointwise kind, View<const T, 2> x, View<const float, 1> row, View<T, 2> y) {
  const std::int64_t d = x.shape[1];
  const auto [r, quad] = matrix_place(global_thread(), quads_of(d));
  if (r >= x.shape[0]) {
    return;
  }
  const std::int64_t c = 4 * quad;
  const bool aligned = quads_are_aligned(x) && quads_are_aligned(row) && quads_are_aligned(y);
  Quad value = load_quad(x.row(r) + c, d - c, aligned);
  const Quad factor = load_quad(row.data + c, d - c, aligned);
  TESSERA_UNROLL
  for (int e = 0; e < 4; ++e) {
    value.x[e] = kind == Pointwise::product ? value.x[e] * factor.x[e] : value.x[e] + factor.x[e];
  }
  store_quad(y.row(r) + c, value, d - c, aligned);
}

template <class T>
void combine(Pointwise kind, float alpha, View<const T, 1> a, float beta, View<const T, 1> b,
             View<T, 1> out, Stream stream) {
  if (out.shape[0] > 0) {
    launch(pointwise_kernel<T>,
           {"pointwise", {blocks_for(out.shape[0], 4 * kThreads)}, {kThreads}, 0, stream}, kind,
           alpha, a, beta, b, out);
  }
}

template <class T>
void combine_rows(Pointwise kind, View<const T, 2> x, View<const float, 1> row, View<T, 2> y,
                  Stream stream) {
  if (x.size() > 0) {
    const std::int64_t quads = x.shape[0] * ((x.shape[1] + 3) / 4);
    launch(rowwise_kernel<T>, {"rowwise", {blocks_for(quads, kThreads)}, {kThreads}, 0, stream},
           kind, x, row, y);
  }
}

}  // namespace

void pointwise(Pointwise kind, float alpha, View<const float, 1> a, float beta,
               View<const float, 1> b, View<float, 1> out, Stream stream) {
  combine(kind, alpha, a, beta, b, out, stream);
}

void pointwise_bf16(Pointwise kind, float alpha, View<const bf16, 1> a, float beta,
                    View<const bf16, 1> b, View<bf16, 1> out, Stream stream) {
  combine(kind, alpha, a, beta, b, out, stream);
}

void rowwise(Pointwise kind, View<const float, 2> x, View<const float, 1> row, View<float, 2> y,
             Stream stream) {
  combine_rows(kind, x, row, y, stream);
}

void rowwise_bf16(Pointwise kind, View<const bf16, 2> x, View<const float, 1> row, View<bf16, 2> y,
                  Stream stream) {
  combine_rows(kind, x, row, y, stream);
}

}  // namespace tessera::TESSERA_GPU_NS
