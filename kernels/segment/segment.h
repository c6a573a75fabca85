// Pooling of the tokens of each segment.
#pragma once

#include "core/kernel.h"
#include "core/segments.h"
#include "kernels/segment/segment_types.h"

namespace tessera {

/// Sum, mean or largest value over the rows of each segment; an empty segment gives zeros.
/// x: (T, d), f32 or bf16 -> (B, d), dtype of x, summed in f32. Differentiable in x; the gradient
/// of max goes to the first of equal rows, and a NaN counts as largest.
Tensor segment_pool(const Tensor& x, const Segments& segments, Pool pool);

TESSERA_DECLARE_KERNEL(segment_forward,
                       void(View<const float, 2> x, View<const std::int32_t, 1> offsets, Pool pool,
                            View<float, 2> y, Stream));
TESSERA_DECLARE_KERNEL(segment_backward,
                       void(View<const float, 2> dy, View<const std::int32_t, 1> offsets, Pool pool,
                            View<float, 2> dx, Stream));

/// y (B, d) and the rows of x they come from, -1 where the segment is empty.
TESSERA_DECLARE_KERNEL(segment_max_forward,
                       void(View<const float, 2> x, View<const std::int32_t, 1> offsets,
                            View<float, 2> y, View<std::int32_t, 2> row, Stream));
/// Every row of dx: dy where it was the largest, else zero.
TESSERA_DECLARE_KERNEL(segment_max_backward,
                       void(View<const float, 2> dy, View<const std::int32_t, 2> row,
                            View<const std::int32_t, 1> offsets, View<float, 2> dx, Stream));

/// The same of bf16.
TESSERA_DECLARE_DEVICE_KERNEL(segment_forward_bf16,
                              void(View<const bf16, 2> x, View<const std::int32_t, 1> offsets,
                                   Pool pool, View<bf16, 2> y, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(segment_backward_bf16,
                              void(View<const bf16, 2> dy, View<const std::int32_t, 1> offsets,
                                   Pool pool, View<bf16, 2> dx, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(segment_max_forward_bf16,
                              void(View<const bf16, 2> x, View<const std::int32_t, 1> offsets,
                                   View<bf16, 2> y, View<std::int32_t, 2> row, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(segment_max_backward_bf16,
                              void(View<const bf16, 2> dy, View<const std::int32_t, 2> row,
                                   View<const std::int32_t, 1> offsets, View<bf16, 2> dx, Stream));

}  // namespace tessera
