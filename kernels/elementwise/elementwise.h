// Pointwise arithmetic: sums, products, row broadcasts, activations.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/elementwise/elementwise_types.h"

namespace tessera {

// Tensors are f32 or bf16, results and gradients of the same type; bf16 is worked on in f32 and
// rounded once.

/// a + b, a * b of equal shapes and types. Differentiable in both.
Tensor add(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
/// factor * x.
Tensor scale(const Tensor& x, float factor);
/// x * row and x + row for every row of x (T, d); row: (d) f32. Differentiable in both.
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
/// The same of bf16; the row is f32.
TESSERA_DECLARE_DEVICE_KERNEL(pointwise_bf16,
                              void(Pointwise kind, float alpha, View<const bf16, 1> a, float beta,
                                   View<const bf16, 1> b, View<bf16, 1> out, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(rowwise_bf16,
                              void(Pointwise kind, View<const bf16, 2> x, View<const float, 1> row,
                                   View<bf16, 2> y, Stream));

}  // namespace tessera
