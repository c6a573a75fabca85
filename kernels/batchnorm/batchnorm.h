// Batch normalisation of columns over all rows of a packed batch.
#pragma once

#include "core/kernel.h"
#include "core/tensor.h"
#include "kernels/batchnorm/batchnorm_types.h"

namespace tessera {

struct BatchNormResult {
  Tensor y;         // (N, C)
  Tensor mean;      // (C), of this batch
  Tensor variance;  // (C), of this batch, unbiased: what running statistics take in; 0 if N < 2
};

/// y = (x - mean) / sqrt(var + eps) * weight + bias with mean and biased variance of each column
/// over the rows. x: (N, C); weight, bias: (C); f32. Differentiable in all three; mean and variance
/// are results without gradient. Every row enters the statistics: a NaN reaches all rows of its
/// column. Keeps x, mean and 1/sigma. Ioffe, Szegedy 2015 (1502.03167).
BatchNormResult batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           float eps = 1e-5F);

/// The same with given mean and variance (C), as in evaluation: rows are independent.
Tensor batch_norm_with(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& mean, const Tensor& variance, float eps = 1e-5F);

/// mean and biased variance (C) of x (N, C), N > 0, in two passes. partials: scratch (2, blocks,
/// C).
TESSERA_DECLARE_KERNEL(batchnorm_statistics,
                       void(View<const float, 2> x, View<float, 3> partials, View<float, 1> mean,
                            View<float, 1> variance, Stream));
/// 1 / sqrt(variance + eps).
TESSERA_DECLARE_KERNEL(batchnorm_inverse,
                       void(View<const float, 1> variance, float eps, View<float, 1> rstd, Stream));
TESSERA_DECLARE_KERNEL(batchnorm_forward,
                       void(View<const float, 2> x, View<const float, 1> mean,
                            View<const float, 1> rstd, View<const float, 1> weight,
                            View<const float, 1> bias, View<float, 2> y, Stream));
/// dx (N, C), dweight and dbias (C). partials: scratch (2, blocks, C).
TESSERA_DECLARE_KERNEL(batchnorm_backward,
                       void(View<const float, 2> dy, View<const float, 2> x,
                            View<const float, 1> mean, View<const float, 1> rstd,
                            View<const float, 1> weight, View<float, 3> partials, View<float, 2> dx,
                            View<float, 1> dweight, View<float, 1> dbias, Stream));

}  // namespace tessera
