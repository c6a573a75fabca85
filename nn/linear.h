// Linear, LayerNorm and Embedding: the layers that own one table each.
#pragma once

#include "kernels/matmul/matmul.h"
#include "nn/module.h"

namespace tessera {

struct LinearConfig {
  std::int64_t in, out;
  bool bias = true;
  float scale = 1.0F;  ///< multiplies the initial weight (residual projections of deep stacks)
};

/// y = x W^T + b. W: (out, in); b: (out); both U(+-1/sqrt(in)) at start.
struct Linear : Module {
  Tensor weight, bias;
  Linear(const LinearConfig& config, Rng& rng);
  /// x: (T, in) -> (T, out)
  Tensor operator()(const Tensor& x, Activation activation = Activation::none) const;
  /// Outputs begin .. end - 1 only: (T, end - begin).
  [[nodiscard]] Tensor rows(const Tensor& x, std::int64_t begin, std::int64_t end) const;
};

/// y = (x - mean) / sqrt(var + 1e-5) * weight + bias over the last axis; biased variance.
struct LayerNorm : Module {
  Tensor weight, bias;
  explicit LayerNorm(std::int64_t width, float initial_weight = 1.0F);
  Tensor operator()(const Tensor& x) const;  // (T, d) -> (T, d)
};

/// Rows of a table, N(0, sigma^2) at start.
struct Embedding : Module {
  Tensor weight;
  Embedding(std::int64_t rows, std::int64_t width, float sigma, Rng& rng);
  Tensor operator()(const Tensor& ids) const;  // (T) i32 -> (T, d)
};

}  // namespace tessera
