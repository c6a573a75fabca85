// Cross-entropy, also fused with the linear layer in front of it.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/cross_entropy/cross_entropy_types.h"

namespace tessera {

/// -w_i ln softmax(logits_i)_y for each row i. logits: (T, C) f32; targets: (T) i32 on the logits'
/// device or the host; row_weight: (T) or undefined (ones), without gradient. Returns (T). Throws
/// Error(usage) on a target outside [0, C). Differentiable in the logits; keeps the gradient (4 T C
/// bytes).
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& row_weight = {});

/// sum_i w_i ce_i / normaliser for the logits h W^T + b. h: (T, d); weight: (V, d); bias: (V) or
/// undefined; targets: (T) i32; row_weight: (T) or undefined (ones), without gradient; normaliser
/// <= 0 means T. Logits exist for a chunk of rows at a time only (256 on the cpu); where a gradient
/// is needed, dh, dW and db are made in the same pass and kept (4 (T d + V d) bytes instead of 4 T
/// V). Devices store no logits at all where no gradient is needed (d up to 256, at precision bf16
/// up to 512) and at precision bf16 also where one is (d up to 256). Products have the precision()
/// of the call; at bf16 the slopes of the logits are rounded too before they are multiplied.
/// Returns a scalar. Differentiable in h, weight, bias. Chunking after Liger-Kernel (Hsu et al.
/// 2024).
Tensor linear_cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& bias,
                            const Tensor& targets, const Tensor& row_weight = {},
                            double normaliser = 0);

/// loss (T) of each row times its weight (no weights: ones); where `slope` has rows, (softmax -
/// onehot) times weight and `factor` goes there (may alias logits).
TESSERA_DECLARE_KERNEL(softmax_cross_entropy,
                       void(View<const float, 2> logits, View<const std::int32_t, 1> targets,
                            View<const float, 1> row_weight, float factor, View<float, 1> loss,
                            View<float, 2> slope, Stream));

/// loss (T) of each row of h weight^T + bias times its weight, without logits in memory. h: (T, d);
/// weight: (V, d); bias: (V) or none; row_weight: (T) or none (ones). scratch: LossScratch(V,
/// d, depth).size floats on devices, where d <= LossScratch::widest(depth); depth:
/// PackedRows::kF32Depth, of bf16 kBf16Depth.
TESSERA_DECLARE_KERNEL(cross_entropy_loss,
                       void(View<const float, 2> h, View<const float, 2> weight,
                            View<const float, 1> bias, View<const std::int32_t, 1> targets,
                            View<const float, 1> row_weight, View<float, 1> loss,
                            View<float, 1> scratch, Stream));
TESSERA_DECLARE_KERNEL(cross_entropy_loss_bf16,
                       void(View<const float, 2> h, View<const float, 2> weight,
                            View<const float, 1> bias, View<const std::int32_t, 1> targets,
                            View<const float, 1> row_weight, View<float, 1> loss,
                            View<float, 1> scratch, Stream));

/// The same losses at precision bf16 and, where dh (T, d), dw (V, d) and db (V) have rows, the
/// gradients of sum(loss) factor; dw is contiguous. Nothing is written where T is 0. scratch:
/// GradientScratch(T, V, d).size floats, d <= GradientScratch::kWidest.
TESSERA_DECLARE_KERNEL(cross_entropy_gradients,
                       void(View<const float, 2> h, View<const float, 2> weight,
                            View<const float, 1> bias, View<const std::int32_t, 1> targets,
                            View<const float, 1> row_weight, float factor, View<float, 1> loss,
                            View<float, 2> dh, View<float, 2> dw, View<float, 1> db,
                            View<float, 1> scratch, Stream));

}  // namespace tessera
