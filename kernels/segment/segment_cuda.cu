// A warp per segment, a lane per column; rows in order, so no atomics and the order of the cpu.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/segment/segment_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 4;

TESSERA_DEVICE std::int64_t segment_of_warp() {
  return static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
}

/// Rows begin .. end - 1 of a segment.
struct Rows {
  std::int32_t begin, end;
};

TESSERA_DEVICE Rows rows_of(View<const std::int32_t, 1> offsets, std::int64_t segment) {
  return {ldg(offsets.data + segment), ldg(offsets.data + segment + 1)};
}

TESSERA_DEVICE float weight(std::int32_t length, Pool pool) {
  return pool == Pool::mean && length > 0 ? 1.0F / static_cast<float>(length) : 1.0F;
}

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(View<const float, 2> x, View<const std::int32_t, 1> offsets, Pool pool,
                   View<float, 2> y) {
  const std::int64_t b = segment_of_warp();
  if (b >= y.shape[0]) {
    return;
  }
  const auto [begin, end] = rows_of(offsets, b);
  for (std::int64_t j = lane(); j < y.shape[1]; j += 32) {
    float sum = 0;
    for (std::int32_t i = begin; i < end; ++i) {
      sum += ldg(&x(i, j));
    }
    stg(&y(b, j), sum * weight(end - begin, pool));
  }
}

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    backward_kernel(View<const float, 2> dy, View<const std::int32_t, 1> offsets, Pool pool,
                    View<float, 2> dx) {
  const std::int64_t b = segment_of_warp();
  if (b >= dy.shape[0]) {
    return;
  }
  const auto [begin, end] = rows_of(offsets, b);
  for (std::int64_t j = lane(); j < dx.shape[1]; j += 32) {
    const float slope = weight(end - begin, pool) * ldg(&dy(b, j));
    for (std::int32_t i = begin; i < end; ++i) {
      stg(&dx(i, j), slope);
    }
  }
}

// The first of equal rows wins and keeps its place; so does the first NaN.
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    max_forward_kernel(View<const float, 2> x, View<const std::int32_t, 1> offsets,
                       View<float, 2> y, View<std::int32_t, 2> row) {
  const std::int64_t b = segment_of_warp();
  if (b >= y.shape[0]) {
    return;
  }
  const auto [begin, end] = rows_of(offsets, b);
  for (std::int64_t j = lane(); j < y.shape[1]; j += 32) {
    std::int32_t best = begin < end ? begin : -1;
    float top = best < 0 ? 0.0F : ldg(&x(best, j));
    for (std::int32_t i = begin + 1; i < end; ++i) {
      const float value = ldg(&x(i, j));
      if (!(value <= top) && top == top) {
        best = i;
        top = value;
      }
    }
    stg(&row(b, j), best);
    stg(&y(b, j), top);
  }
}

TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    max_backward_kernel(View<const float, 2> dy, View<const std::int32_t, 2> row,
                        View<float, 2> dx) {
  const std::int64_t b = segment_of_warp();
  if (b >= dy.shape[0]) {
    return;
  }
  for (std::int64_t j = lane(); j < dy.shape[1]; j += 32) {
    const std::int32_t from = ldg(&row(b, j));
    if (from >= 0) {
      stg(&dx(from, j), ldg(&dy(b, j)));
    }
  }
}

LaunchConfig config_for(const char* name, std::int64_t segments, Stream stream) {
  return {name, {blocks_for(segments, kWarps)}, {32 * kWarps}, 0, stream};
}

}  // namespace

void segment_forward(View<const float, 2> x, View<const std::int32_t, 1> offsets, Pool pool,
                     View<float, 2> y, Stream stream) {
  if (y.size() > 0) {
    launch(forward_kernel, config_for("segment_forward", y.shape[0], stream), x, offsets, pool, y);
  }
}

void segment_backward(View<const float, 2> dy, View<const std::int32_t, 1> offsets, Pool pool,
                      View<float, 2> dx, Stream stream) {
  if (dy.size() > 0) {
    launch(backward_kernel, config_for("segment_backward", dy.shape[0], stream), dy, offsets, pool,
           dx);
  }
}

void segment_max_forward(View<const float, 2> x, View<const std::int32_t, 1> offsets,
                         View<float, 2> y, View<std::int32_t, 2> row, Stream stream) {
  if (y.size() > 0) {
    launch(max_forward_kernel, config_for("segment_max_forward", y.shape[0], stream), x, offsets, y,
           row);
  }
}

void segment_max_backward(View<const float, 2> dy, View<const std::int32_t, 2> row,
                          View<float, 2> dx, Stream stream) {
  if (dy.size() > 0) {
    launch(max_backward_kernel, config_for("segment_max_backward", dy.shape[0], stream), dy, row,
           dx);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
