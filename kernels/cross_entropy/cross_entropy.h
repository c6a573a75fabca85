// Cross-entropy, also fused with the linear layer in front of it.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"

namespace tessera {

/// -ln softmax(logits)_y for each row. logits: (N, C) f32; targets: (N) i32. Returns (N). Throws
/// Error(usage) on a target outside [0, C). Differentiable in the logits; keeps the gradient (4 N C
/// bytes).
Tensor cross_entropy(const Tensor& logits, const Tensor& targets);

/// Mean over rows of the cross-entropy of logits = h W^T + b against targets. h: (T, d); weight:
/// (V, d); bias: (V). Logits exist for 256 rows at a time only; where a gradient is needed, dh, dW
/// and db are made in the same pass and kept (4 (T d + V d) bytes instead of 4 T V). Returns a
/// scalar. Differentiable in h, weight, bias. Chunking after Liger-Kernel (Hsu et al. 2024).
Tensor linear_cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& bias,
                            const Tensor& targets);

/// loss (N) of each row; where `slope` has rows, softmax - onehot times `factor` goes there (may
/// alias logits).
TESSERA_DECLARE_KERNEL(softmax_cross_entropy,
                       void(View<const float, 2> logits, View<const std::int32_t, 1> targets,
                            float factor, View<float, 1> loss, View<float, 2> slope, Stream));

}  // namespace tessera
