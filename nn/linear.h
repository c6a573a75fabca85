// Linear, LayerNorm and Embedding: the layers that own one table each.
#pragma once

#include "kernels/layernorm/layernorm.h"
#include "kernels/matmul/matmul.h"
#include "nn/module.h"

namespace tessera {

struct LinearConfig {
  std::int64_t in, out;
  bool bias = true;
  float scale = 1.0F;  ///< multiplies the initial weight (residual projections of deep stacks)
};

/// Low-rank adapters of a frozen Linear.
struct LoraConfig {
  std::int64_t rank = 8;
  float alpha = 16.0F;  ///< the product of the adapters is scaled by alpha / rank
};

/// y = x W^T + b. W: (out, in); b: (out); both U(+-1/sqrt(in)) at start.
struct Linear : Module {
  Tensor weight, bias;
  Linear(const LinearConfig& config, Rng& rng);
  /// x: (T, in) -> (T, out)
  Tensor operator()(const Tensor& x, Activation activation = Activation::none) const;
  /// Outputs begin .. end - 1 only: (T, end - begin).
  [[nodiscard]] Tensor rows(const Tensor& x, std::int64_t begin, std::int64_t end) const;

  /// Adapters "lora_a" (adapters * rank, in), U(+-1/sqrt(in)), and "lora_b" (out, rank), zero: each
  /// of `adapters` equal shares of the outputs gets W + (alpha / rank) B A. See nn/lora.h.
  void add_lora(const LoraConfig& config, int adapters, Rng& rng);
  /// W := W + (alpha / rank) B A; the adapters are gone.
  void merge_lora();
  /// W with its adapters, (out, in).
  [[nodiscard]] Tensor effective_weight() const;

 private:
  Tensor lora_a_, lora_b_;  // undefined without adapters
  float lora_scale_ = 0;
};

/// y = (x - mean) / sqrt(var + 1e-5) * weight + bias over the last axis; biased variance.
struct LayerNorm : Module {
  Tensor weight, bias;
  explicit LayerNorm(std::int64_t width, float initial_weight = 1.0F);
  Tensor operator()(const Tensor& x) const;  // (T, d) -> (T, d)
  /// x + y, and its norm: add_layer_norm().
  [[nodiscard]] NormedSum of_sum(const Tensor& x, const Tensor& y) const;
};

/// Rows of a table, N(0, sigma^2) at start.
struct Embedding : Module {
  Tensor weight;
  Embedding(std::int64_t rows, std::int64_t width, float sigma, Rng& rng);
  Tensor operator()(const Tensor& ids) const;  // (T) i32 -> (T, d)
};

}  // namespace tessera
