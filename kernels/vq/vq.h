// Vector quantisation: nearest code, straight-through gradient, codebook loss.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"

namespace tessera {

struct VqOptions {
  float beta = 0.9F;       ///< weight of the codebook term; commitment has 1 - beta
  float nu = 1.0F;         ///< share of the output gradient that also moves the code
  float affine_lr = 2.0F;  ///< effective codebook e' = (1 + affine_lr s) e + affine_lr b
};

struct VqResult {
  Tensor quantized;  // (T, D): e'_k, with the gradient of the straight-through estimator
  Tensor codes;      // (T) i32
  Tensor loss;  // scalar: (1 - beta) mean |z - sg(q)|^2 + beta mean |sg(z) - q|^2, over all T D
                // elements
};

/// Quantises z (T, D) with codebook (K, D), affine scale and bias (D). Differentiable in all four:
/// with g = d/dq,
///   dz = g + dloss (1 - beta) 2 (z - q) / (T D);   dq = nu g + dloss beta 2 (q - z) / (T D);
///   G_k = sum of dq over rows of code k;  de = (1 + a s) G;  ds = a sum_k G e;  db = a sum_k G.
/// Sums run over rows in order. Huh et al. 2023 (2305.08842), as OmniJet-alpha sets it.
VqResult vector_quantize(const Tensor& z, const Tensor& codebook, const Tensor& scale,
                         const Tensor& bias, const VqOptions& options);

/// e' (K, D), without gradient.
Tensor vq_effective_codebook(const Tensor& codebook, const Tensor& scale, const Tensor& bias,
                             float affine_lr);

/// codes (T) i32: argmax_k of s_k = -|e_k|^2 / 2 + z . e_k, accumulated from -h_k by fused
/// multiply-adds in the order of d: equal on every device and SIMD level. Ties go to the smaller
/// index; a NaN row gives 0. No gradient.
Tensor vq_assign(const Tensor& z, const Tensor& effective_codebook);

/// Rows of the effective codebook, (T, D), without gradient.
Tensor vq_lookup(const Tensor& codes, const Tensor& effective_codebook);

/// codes_t is the codebook transposed to (D, K); half_norm (K).
TESSERA_DECLARE_KERNEL(vq_nearest,
                       void(View<const float, 2> z, View<const float, 2> codes_t,
                            View<const float, 1> half_norm, View<std::int32_t, 1> codes, Stream));

}  // namespace tessera
