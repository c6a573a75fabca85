// Dropout: a mask drawn per element from a counter, so that it is never stored.
#pragma once

#include "core/kernel.h"
#include "core/rng.h"
#include "core/tensor.h"

namespace tessera {

/// y_e = x_e / (1 - p) where u_e >= p, else 0; u_e = key.uniform(e), e the row-major index. x: any
/// shape, f32 or bf16. p = 0 returns x itself. Throws Error(usage) unless 0 <= p < 1.
/// Differentiable in x; the backward draws the mask again instead of keeping it. Srivastava et al.
/// 2014.
Tensor dropout(const Tensor& x, float p, RngKey key);

/// The same map serves x and its gradient. A dropped element is 0 even where x is NaN.
TESSERA_DECLARE_KERNEL(dropout_apply,
                       void(View<const float, 1> x, float p, RngKey key, View<float, 1> y, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(dropout_apply_bf16, void(View<const bf16, 1> x, float p, RngKey key,
                                                       View<bf16, 1> y, Stream));

}  // namespace tessera
