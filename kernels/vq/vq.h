// Vector quantisation: nearest code, straight-through gradient, codebook loss.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/vq/distance.h"
#include "kernels/vq/vq_types.h"

namespace tessera {

struct VqOptions {
  float beta = 0.9F;       ///< weight of the codebook term; commitment has 1 - beta
  float nu = 1.0F;         ///< share of the output gradient that also moves the code
  float affine_lr = 2.0F;  ///< effective codebook e' = (1 + affine_lr s) e + affine_lr b
  VqDistance distance = VqDistance::f32;
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
/// index; a NaN row gives 0. No gradient. f16: kernels/vq/distance.h; throws Error(usage) on
/// devices.
Tensor vq_assign(const Tensor& z, const Tensor& effective_codebook,
                 VqDistance distance = VqDistance::f32);

/// Rows of the effective codebook, (T, D), without gradient.
Tensor vq_lookup(const Tensor& codes, const Tensor& effective_codebook);

/// codes_t is the codebook transposed to (D, K); half_norm (K). scratch: VqScratch(T, K, D).size
/// words on devices, of which the first tell how the rows were decided; the cpu reads none.
TESSERA_DECLARE_KERNEL(vq_nearest, void(View<const float, 2> z, View<const float, 2> codes_t,
                                        View<const float, 1> half_norm, View<std::int32_t, 1> codes,
                                        View<std::int32_t, 1> scratch, Stream));
/// codes_t (D, K) and half_norm (K) of codes (K, D): |e|^2 / 2 by fused multiply-adds in the order
/// of d.
TESSERA_DECLARE_KERNEL(vq_prepare, void(View<const float, 2> codes, View<float, 2> codes_t,
                                        View<float, 1> half_norm, Stream));
/// out (K, D) = (1 + affine_lr s) e + affine_lr b.
TESSERA_DECLARE_KERNEL(vq_effective, void(View<const float, 2> codebook, View<const float, 1> scale,
                                          View<const float, 1> bias, float affine_lr,
                                          View<float, 2> out, Stream));
/// q (T, D): row codes[i] of the codebook. partials: sums of (z - q)^2 over each kVqBlock elements.
TESSERA_DECLARE_KERNEL(vq_quantize, void(View<const float, 2> z, View<const std::int32_t, 1> codes,
                                         View<const float, 2> codebook, View<float, 2> q,
                                         View<float, 1> partials, Stream));
/// dz and each row's part of its code's gradient, (T, D). dq (T, D) and dloss (1) are zero where
/// they have no elements.
TESSERA_DECLARE_KERNEL(vq_backward,
                       void(View<const float, 2> dq, View<const float, 1> dloss,
                            View<const float, 2> z, View<const float, 2> q, VqSlopes slopes,
                            View<float, 2> dz, View<float, 2> dcode, Stream));
/// de (K, D), ds and db (D) of the sums G (K, D).
TESSERA_DECLARE_KERNEL(vq_codebook_backward,
                       void(View<const float, 2> sums, View<const float, 2> codebook,
                            View<const float, 1> scale, float affine_lr, View<float, 2> de,
                            View<float, 1> ds, View<float, 1> db, Stream));

}  // namespace tessera
