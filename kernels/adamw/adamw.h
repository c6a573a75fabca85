// AdamW over flat parameter buffers.
#pragma once

#include <span>

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/adamw/adamw_types.h"

namespace tessera {

struct AdamWOptions {
  float lr = 1e-3F;
  float beta1 = 0.9F, beta2 = 0.999F, eps = 1e-8F;
  float weight_decay = 0;
  float clip_norm = 0;    ///< largest global gradient norm; 0 = no clipping
  std::int64_t step = 1;  ///< counts from 1, for the bias correction
};

/// A piece of the flat buffer with its own shares of learning rate and decay.
struct AdamWSpan {
  std::int64_t begin, end;
  float lr_scale = 1, weight_decay_scale = 1;
};

/// One step in place: g *= min(1, clip / (|g| + 1e-6)); p *= 1 - lr wd; m, v moments; p -= lr m^ /
/// (sqrt(v^) + eps). All (P) f32. Returns |g| before clipping. Throws Error(numeric) on a
/// non-finite norm, with nothing changed. Loshchilov, Hutter 2019; order and constants as
/// torch.optim.AdamW.
double adamw_step(const Tensor& parameters, const Tensor& gradients, const Tensor& m,
                  const Tensor& v, std::span<const AdamWSpan> spans, const AdamWOptions& options);

/// out (1) f64 = sum of squares, in fixed chunks merged as a tree.
TESSERA_DECLARE_KERNEL(squared_norm, void(View<const float, 1> x, double* out, Stream));

/// Devices: for each block of kSquaredNormBlock elements a power of two that brings the largest of
/// them near one, and the sum of squares of what it multiplies, so that no square leaves the range
/// of f32. out (2, blocks): sums, powers. The host adds in double, in order.
TESSERA_DECLARE_KERNEL(squared_norm_blocks,
                       void(View<const float, 1> x, View<float, 2> out, Stream));

TESSERA_DECLARE_KERNEL(adamw_update,
                       void(View<float, 1> p, View<const float, 1> g, View<float, 1> m,
                            View<float, 1> v, AdamWUpdate update, Stream));

}  // namespace tessera
