// Rows by index: the one mover of rows behind embeddings, registers, masks and class tokens.
#pragma once

#include <span>

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/gather/gather_types.h"

namespace tessera {

/// y[i] = x[index[i]]. x: (N, d) f32 or bf16; index: (M) i32 on x's device or the host, rows may
/// repeat. Returns (M, d), dtype of x. Throws Error(usage) on an index outside [0, N).
/// Differentiable in x: rows are summed in f32 in the order of i, so repeats give the same bits.
Tensor gather_rows(const Tensor& x, const Tensor& index);

/// y[i] = values[index[i]] + shift, or the number n itself where index[i] is literal_token(n).
/// values: (N) i32 on any device; returns (M) i32 there. So that tokens made on a device need not
/// come to the host to be put in order. Throws Error(usage) on an index beyond N.
Tensor gather_tokens(const Tensor& values, const std::vector<std::int32_t>& index,
                     std::int32_t shift = 0);
constexpr std::int32_t literal_token(std::int32_t token) { return -1 - token; }

/// Token embedding: gather_rows under its usual name. table: (V, d); ids: (T) i32.
Tensor embedding(const Tensor& table, const Tensor& ids);

/// Stacks (N_i, d) tensors of one type along rows. Differentiable in each.
Tensor concat_rows(std::span<const Tensor> parts);

/// Positions by key, each key's in rising order: those of key n are order[starts[n]] ..
/// order[starts[n + 1] - 1].
struct RowsByKey {
  Tensor starts, order;  // (N + 1), (M) i32
};
/// A stable counting sort of keys (M) i32 in [0, count), unchecked, on their device.
RowsByKey rows_by_key(const Tensor& keys, std::int64_t count);
/// Sums of the rows of x (M, d), f32 or bf16, of each key, (N, d), in order of their positions. No
/// gradient.
Tensor sum_by_key(const Tensor& x, const RowsByKey& by);

TESSERA_DECLARE_KERNEL(gather_integers,
                       void(View<const std::int32_t, 1> values, View<const std::int32_t, 1> index,
                            std::int32_t shift, View<std::int32_t, 1> y, Stream));
TESSERA_DECLARE_KERNEL(gather_forward,
                       void(View<const float, 2> x, View<const std::int32_t, 1> index,
                            View<float, 2> y, Stream));
/// dx[n] = sum of dy[i] over index[i] == n, i ascending. `starts` (N + 1) and `order` (M): rows of
/// dy by index.
TESSERA_DECLARE_KERNEL(gather_backward,
                       void(View<const float, 2> dy, View<const std::int32_t, 1> starts,
                            View<const std::int32_t, 1> order, View<float, 2> dx, Stream));
/// The same of bf16.
TESSERA_DECLARE_DEVICE_KERNEL(gather_forward_bf16,
                              void(View<const bf16, 2> x, View<const std::int32_t, 1> index,
                                   View<bf16, 2> y, Stream));
TESSERA_DECLARE_DEVICE_KERNEL(gather_backward_bf16,
                              void(View<const bf16, 2> dy, View<const std::int32_t, 1> starts,
                                   View<const std::int32_t, 1> order, View<bf16, 2> dx, Stream));
/// Devices: `starts` (N + 1) and `order` (M) of rows_by_key. counts: scratch (ceil(M / kSortChunk),
/// N).
TESSERA_DECLARE_DEVICE_KERNEL(gather_sort,
                              void(View<const std::int32_t, 1> keys, View<std::int32_t, 2> counts,
                                   View<std::int32_t, 1> starts, View<std::int32_t, 1> order,
                                   Stream));

}  // namespace tessera
