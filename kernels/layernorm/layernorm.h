// Layer normalisation.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/layernorm/layernorm_types.h"

namespace tessera {

/// y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis, biased variance, two
/// passes. x: (T, d), f32 or bf16; weight, bias: (d) f32. Returns (T, d), dtype of x; statistics
/// and sums are f32, bf16 is rounded once at each end. Differentiable in all three. Keeps x, mean
/// and 1/sigma (8 T bytes more). Zero variance is finite: dx = eps^-1/2 (g' - mean(g')), g' = g *
/// weight. Ba, Kiros, Hinton 2016.
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps = 1e-5F);

/// Rows that were added, and their norm.
struct NormedSum {
  Tensor sum, normed;
};
/// sum = x + y, normed = layer_norm(sum): a residual and the norm behind it, with the bits of the
/// two ops, bf16 gradients of the sum but for being rounded once. x, y: (T, d) of one dtype.
/// Differentiable in all four. One pass instead of two: 4 T d elements through memory forward
/// instead of 5, and backward, where the gradient that reaches the sum from elsewhere enters, 4
/// instead of 6.
NormedSum add_layer_norm(const Tensor& x, const Tensor& y, const Tensor& weight, const Tensor& bias,
                         float eps = 1e-5F);

/// y (T, d), mean (T), rstd (T) of x (T, d), or of its sum with the residual.
TESSERA_DECLARE_KERNEL(layernorm_forward,
                       void(View<const float, 2> x, LayerNormResidual<float> residual,
                            View<const float, 1> weight, View<const float, 1> bias, float eps,
                            View<float, 2> y, View<float, 1> mean, View<float, 1> rstd, Stream));
/// dx (T, d) plus dsum (T, d), the gradient of x from elsewhere, if not null; and dweight, dbias
/// summed over fixed blocks of kLayerNormBlock rows into partials (2, blocks, d).
TESSERA_DECLARE_KERNEL(layernorm_backward,
                       void(View<const float, 2> dy, View<const float, 2> dsum,
                            View<const float, 2> x, View<const float, 1> weight,
                            View<const float, 1> mean, View<const float, 1> rstd, View<float, 2> dx,
                            View<float, 3> partials, Stream));
/// dweight, dbias (d) from the partials, blocks added in order.
TESSERA_DECLARE_KERNEL(layernorm_reduce, void(View<const float, 3> partials, View<float, 1> dweight,
                                              View<float, 1> dbias, Stream));
/// The same of bf16 rows.
TESSERA_DECLARE_DEVICE_KERNEL(layernorm_forward_bf16,
                              void(View<const bf16, 2> x, LayerNormResidual<bf16> residual,
                                   View<const float, 1> weight, View<const float, 1> bias,
                                   float eps, View<bf16, 2> y, View<float, 1> mean,
                                   View<float, 1> rstd, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(layernorm_backward_bf16,
                              void(View<const bf16, 2> dy, View<const bf16, 2> dsum,
                                   View<const bf16, 2> x, View<const float, 1> weight,
                                   View<const float, 1> mean, View<const float, 1> rstd,
                                   View<bf16, 2> dx, View<float, 3> partials, Stream));
inline constexpr std::int64_t kLayerNormBlock = 256;

}  // namespace tessera
