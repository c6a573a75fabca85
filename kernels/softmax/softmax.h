// Softmax over the last axis.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/softmax/softmax_types.h"

namespace tessera {

/// y_j = exp(x_j - max) / sum_k exp(x_k - max) in each row. x: (N, C) f32. An entry of -inf has
/// probability 0; a row with NaN, +inf or nothing but -inf is NaN. Throws Error(usage) unless the
/// rank is 2. Differentiable; keeps y.
Tensor softmax(const Tensor& x);
/// y_j = x_j - max - log sum_k exp(x_k - max). Otherwise as softmax.
Tensor log_softmax(const Tensor& x);

/// y (N, C) of x (N, C).
TESSERA_DECLARE_KERNEL(softmax_forward,
                       void(SoftmaxKind kind, View<const float, 2> x, View<float, 2> y, Stream));
/// dx (N, C) of dy and of the y that the forward wrote.
TESSERA_DECLARE_KERNEL(softmax_backward, void(SoftmaxKind kind, View<const float, 2> dy,
                                              View<const float, 2> y, View<float, 2> dx, Stream));

}  // namespace tessera
