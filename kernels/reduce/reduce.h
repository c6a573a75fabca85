// Sums to a scalar.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/reduce/reduce_types.h"

namespace tessera {

/// Sum and mean of all elements, rank 0. Partial sums over fixed chunks of 4096 in double, merged
/// as a binary tree; on devices in f32 over blocks of 16384, again until one is left: the bits
/// depend on the size only. Differentiable. The mean of nothing is 0.
Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x);
/// sum_i w_i x_i, rank 0, of equal shapes. Products round to f32, then as sum. Differentiable in
/// both.
Tensor weighted_sum(const Tensor& x, const Tensor& w);

/// out (1). Devices: of at most kSumBlock elements.
TESSERA_DECLARE_KERNEL(reduce_sum, void(View<const float, 1> x, View<float, 1> out, Stream));
/// Devices: out (blocks), the sum of each kSumBlock elements.
TESSERA_DECLARE_KERNEL(reduce_blocks, void(View<const float, 1> x, View<float, 1> out, Stream));

}  // namespace tessera
