// Losses of each row; means are taken by the caller, so per-jet weights act per jet.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"

namespace tessera {

/// (prediction - target)^2, any shape. Differentiable in the prediction.
Tensor squared_error(const Tensor& prediction, const Tensor& target);

/// r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2); r = prediction - target. Differentiable
/// in the prediction.
Tensor huber_loss(const Tensor& prediction, const Tensor& target, float delta);

/// -(1 - p_y)^gamma w_y ln p_y of softmax(logits). logits: (N, C); targets: (N) i32; class_weight:
/// (C). Returns (N). Throws Error(usage) on a target outside [0, C). Differentiable in the logits.
/// Lin et al. 2017 (1708.02002).
Tensor focal_loss(const Tensor& logits, const Tensor& targets, const Tensor& class_weight,
                  float gamma);

/// loss and slope d loss / d prediction, elementwise; delta <= 0 means squared error.
TESSERA_DECLARE_KERNEL(residual_loss,
                       void(View<const float, 1> prediction, View<const float, 1> target,
                            float delta, View<float, 1> loss, View<float, 1> slope, Stream));
/// loss (N) and d loss / d logits (N, C).
TESSERA_DECLARE_KERNEL(focal, void(View<const float, 2> logits, View<const std::int32_t, 1> targets,
                                   View<const float, 1> class_weight, float gamma,
                                   View<float, 1> loss, View<float, 2> slope, Stream));
/// out[i, :] = x[i, :] * factor[i]
TESSERA_DECLARE_KERNEL(scale_rows, void(View<const float, 2> x, View<const float, 1> factor,
                                        View<float, 2> out, Stream));

}  // namespace tessera
