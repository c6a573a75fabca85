// Pointwise arithmetic: sums, products, row broadcasts, activations.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/elementwise/elementwise_types.h"

namespace tessera {

/// a + b, a * b of equal shapes. Differentiable in both.
Tensor add(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
/// factor * x.
Tensor scale(const Tensor& x, float factor);
/// x * row and x + row for every row of x (T, d); row: (d). Differentiable in both.
Tensor mul_rows(const Tensor& x, const Tensor& row);
Tensor add_rows(const Tensor& x, const Tensor& row);
/// max(x, 0); x Phi(x); x sigmoid(x).
Tensor relu(const Tensor& x);
Tensor gelu(const Tensor& x);
Tensor silu(const Tensor& x);

/// out = alpha * a + beta * b, or out = a * b where `product`.
TESSERA_DECLARE_KERNEL(pointwise,
                       void(Pointwise kind, float alpha, View<const float, 1> a, float beta,
                            View<const float, 1> b, View<float, 1> out, Stream));
/// y = x * row or x + row.
TESSERA_DECLARE_KERNEL(rowwise, void(Pointwise kind, View<const float, 2> x,
                                     View<const float, 1> row, View<float, 2> y, Stream));

}  // namespace tessera
