// A warp per segment and 32 columns, a lane per column, f32 or bf16 and f32 between; rows in order,
// so no atomics and the order of the cpu.
#include "core/dtype.h"
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/segment/segment_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kWarps = 4;

/// What a lane works on: column may lie past the last one, segment too.
struct Item {
  std::int64_t segment, column;
};

TESSERA_DEVICE Item item_of_lane(std::int64_t columns) {
  const std::int64_t i = static_cast<std::int64_t>(block_idx().x) * kWarps + warp();
  const auto [segment, part] = matrix_place(i, (columns + 31) / 32);
  return {segment, 32 * part + lane()};
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

template <class T>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    forward_kernel(View<const T, 2> x, View<const std::int32_t, 1> offsets, Pool pool,
                   View<T, 2> y) {
  const auto [b, j] = item_of_lane(y.shape[1]);
  if (b >= y.shape[0] || j >= y.shape[1]) {
    return;
  }
  const auto [begin, end] = rows_of(offsets, b);
  float sum = 0;
  for (std::int32_t i = begin; i < end; ++i) {
    sum += static_cast<float>(ldg(&x(i, j)));
  }
  stg(&y(b, j), T(sum * weight(end - begin, pool)));
}

template <class T>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    backward_kernel(View<const T, 2> dy, View<const std::int32_t, 1> offsets, Pool pool,
                    View<T, 2> dx) {
  const auto [b, j] = item_of_lane(dy.shape[1]);
  if (b >= dy.shape[0] || j >= dy.shape[1]) {
    return;
  }
  const auto [begin, end] = rows_of(offsets, b);
  const T slope(weight(end - begin, pool) * static_cast<float>(ldg(&dy(b, j))));
  for (std::int32_t i = begin; i < end; ++i) {
    stg(&dx(i, j), slope);
  }
}

// The first of equal rows wins and keeps its place; so does the first NaN.
template <class T>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    max_forward_kernel(View<const T, 2> x, View<const std::int32_t, 1> offsets, View<T, 2> y,
                       View<std::int32_t, 2> row) {
  const auto [b, j] = item_of_lane(y.shape[1]);
  if (b >= y.shape[0] || j >= y.shape[1]) {
    return;
  }
  const auto [begin, end] = rows_of(offsets, b);
  std::int32_t best = begin < end ? begin : -1;
  float top = best < 0 ? 0.0F : static_cast<float>(ldg(&x(best, j)));
  for (std::int32_t i = begin + 1; i < end; ++i) {
    const auto value = static_cast<float>(ldg(&x(i, j)));
    if (!(value <= top) && top == top) {
      best = i;
      top = value;
    }
  }
  stg(&row(b, j), best);
  stg(&y(b, j), T(top));
}

template <class T>
TESSERA_GLOBAL void __launch_bounds__(32 * kWarps)
    max_backward_kernel(View<const T, 2> dy, View<const std::int32_t, 2> row,
                        View<const std::int32_t, 1> offsets, View<T, 2> dx) {
  const auto [b, j] = item_of_lane(dy.shape[1]);
  if (b >= dy.shape[0] || j >= dy.shape[1]) {
    return;
  }
  const auto [begin, end] = rows_of(offsets, b);
  const std::int32_t from = ldg(&row(b, j));
  const T slope = ldg(&dy(b, j));
  for (std::int32_t i = begin; i < end; ++i) {
    stg(&dx(i, j), i == from ? slope : T(0.0F));
  }
}

template <class T>
LaunchConfig config_for(const char* name, View<T, 2> pooled, Stream stream) {
  const std::int64_t warps = pooled.shape[0] * blocks_for(pooled.shape[1], 32);
  return {name, {blocks_for(warps, kWarps)}, {32 * kWarps}, 0, stream};
}

template <class T>
void pool_rows(View<const T, 2> x, View<const std::int32_t, 1> offsets, Pool pool, View<T, 2> y,
               Stream stream) {
  if (y.size() > 0) {
    launch(forward_kernel<T>, config_for("segment_forward", y, stream), x, offsets, pool, y);
  }
}
template <class T>
void spread_rows(View<const T, 2> dy, View<const std::int32_t, 1> offsets, Pool pool, View<T, 2> dx,
                 Stream stream) {
  if (dy.size() > 0) {
    launch(backward_kernel<T>, config_for("segment_backward", dy, stream), dy, offsets, pool, dx);
  }
}
template <class T>
void largest_rows(View<const T, 2> x, View<const std::int32_t, 1> offsets, View<T, 2> y,
                  View<std::int32_t, 2> row, Stream stream) {
  if (y.size() > 0) {
    launch(max_forward_kernel<T>, config_for("segment_max_forward", y, stream), x, offsets, y, row);
  }
}
template <class T>
void return_rows(View<const T, 2> dy, View<const std::int32_t, 2> row,
                 View<const std::int32_t, 1> offsets, View<T, 2> dx, Stream stream) {
  if (dy.size() > 0) {
    launch(max_backward_kernel<T>, config_for("segment_max_backward", dy, stream), dy, row, offsets,
           dx);
  }
}

}  // namespace

void segment_forward(View<const float, 2> x, View<const std::int32_t, 1> offsets, Pool pool,
                     View<float, 2> y, Stream stream) {
  pool_rows(x, offsets, pool, y, stream);
}
void segment_forward_bf16(View<const bf16, 2> x, View<const std::int32_t, 1> offsets, Pool pool,
                          View<bf16, 2> y, Stream stream) {
  pool_rows(x, offsets, pool, y, stream);
}

void segment_backward(View<const float, 2> dy, View<const std::int32_t, 1> offsets, Pool pool,
                      View<float, 2> dx, Stream stream) {
  spread_rows(dy, offsets, pool, dx, stream);
}
void segment_backward_bf16(View<const bf16, 2> dy, View<const std::int32_t, 1> offsets, Pool pool,
                           View<bf16, 2> dx, Stream stream) {
  spread_rows(dy, offsets, pool, dx, stream);
}

void segment_max_forward(View<const float, 2> x, View<const std::int32_t, 1> offsets,
                         View<float, 2> y, View<std::int32_t, 2> row, Stream stream) {
  largest_rows(x, offsets, y, row, stream);
}
void segment_max_forward_bf16(View<const bf16, 2> x, View<const std::int32_t, 1> offsets,
                              View<bf16, 2> y, View<std::int32_t, 2> row, Stream stream) {
  largest_rows(x, offsets, y, row, stream);
}

void segment_max_backward(View<const float, 2> dy, View<const std::int32_t, 2> row,
                          View<const std::int32_t, 1> offsets, View<float, 2> dx, Stream stream) {
  return_rows(dy, row, offsets, dx, stream);
}
void segment_max_backward_bf16(View<const bf16, 2> dy, View<const std::int32_t, 2> row,
                               View<const std::int32_t, 1> offsets, View<bf16, 2> dx,
                               Stream stream) {
  return_rows(dy, row, offsets, dx, stream);
}

}  // namespace tessera::TESSERA_GPU_NS
