// BatchNorm: batch statistics in training mode, running ones in evaluation.
#pragma once

#include "nn/module.h"

namespace tessera {

/// y = (x - mean) / sqrt(var + 1e-5) * weight + bias for each column. Training mode normalises with
/// the rows of the call and moves the running values a tenth of the way to their mean and unbiased
/// variance (not where there are fewer than two rows); evaluation uses the running values, so rows
/// are independent.
struct BatchNorm : Module {
  Tensor weight, bias;                      // (C)
  Tensor running_mean, running_var;         // (C), buffers
  static constexpr float kMomentum = 0.1F;  ///< as torch.nn.BatchNorm1d
  explicit BatchNorm(std::int64_t width);
  Tensor operator()(const Tensor& x) const;  // (N, C) -> (N, C)
};

}  // namespace tessera
