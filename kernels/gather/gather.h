// Rows by index: the one mover of rows behind embeddings, registers, masks and class tokens.
#pragma once

#include <span>

#include "core/kernel.h"
#include "core/tensor.h"

namespace tessera {

/// y[i] = x[index[i]]. x: (N, d) f32; index: (M) i32 on x's device or the host, rows may repeat.
/// Returns (M, d). Throws Error(usage) on an index outside [0, N). Differentiable in x: rows are
/// summed in the order of i, so repeats give the same bits.
Tensor gather_rows(const Tensor& x, const Tensor& index);

/// Token embedding: gather_rows under its usual name. table: (V, d); ids: (T) i32.
Tensor embedding(const Tensor& table, const Tensor& ids);

/// Stacks (N_i, d) tensors along rows. Differentiable in each.
Tensor concat_rows(std::span<const Tensor> parts);

TESSERA_DECLARE_KERNEL(gather_forward,
                       void(View<const float, 2> x, View<const std::int32_t, 1> index,
                            View<float, 2> y, Stream));
/// dx[n] = sum of dy[i] over index[i] == n, i ascending. `starts` (N + 1) and `order` (M): rows of
/// dy by index.
TESSERA_DECLARE_KERNEL(gather_backward,
                       void(View<const float, 2> dy, View<const std::int32_t, 1> starts,
                            View<const std::int32_t, 1> order, View<float, 2> dx, Stream));

}  // namespace tessera
