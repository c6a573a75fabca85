#include "nn/linear.h"

#include <cmath>

#include "core/autograd.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"

namespace tessera {

Linear::Linear(const LinearConfig& config, Rng& rng) {
  const float bound = 1.0F / std::sqrt(static_cast<float>(config.in));
  weight = parameter("weight", uniform_init({config.out, config.in}, bound * config.scale, rng));
  if (config.bias) {
    bias = parameter("bias", uniform_init({config.out}, bound, rng));
  }
}

Tensor Linear::operator()(const Tensor& x, Activation activation) const {
  return linear(x, effective_weight(), bias, activation);
}

Tensor Linear::rows(const Tensor& x, std::int64_t begin, std::int64_t end) const {
  return linear(x, effective_weight().slice(0, begin, end),
                bias.defined() ? bias.slice(0, begin, end) : bias);
}

void Linear::add_lora(const LoraConfig& config, int adapters, Rng& rng) {
  const std::int64_t out = weight.shape(0), in = weight.shape(1);
  TESSERA_CHECK(!lora_a_.defined(), "lora: this layer {} has adapters already", weight.shape());
  TESSERA_CHECK(config.rank > 0 && adapters > 0 && out % adapters == 0,
                "lora: rank must be positive and {} adapters share {} outputs, got rank {}",
                adapters, out, config.rank);
  const float bound = 1.0F / std::sqrt(static_cast<float>(in));
  lora_a_ = parameter("lora_a", uniform_init({adapters * config.rank, in}, bound, rng));
  lora_b_ = parameter("lora_b", Tensor::zeros({out, config.rank}));
  lora_scale_ = config.alpha / static_cast<float>(config.rank);
}

// The weight form: one product of all rows as without adapters, at the price that the gradient of
// the sum is a full (out, in) matrix, as in full fine-tuning. Adapters on the activations instead
// would save that product and cost two more passes over the rows; the base, step 0 and the merged
// layer would no longer be one formula.
Tensor Linear::effective_weight() const {
  if (!lora_a_.defined()) {
    return weight;
  }
  const std::int64_t rank = lora_b_.shape(1), adapters = lora_a_.shape(0) / rank;
  const std::int64_t share = weight.shape(0) / adapters;
  std::vector<Tensor> products;
  for (std::int64_t i = 0; i < adapters; ++i) {
    products.push_back(matmul(lora_b_.slice(0, i * share, (i + 1) * share),
                              lora_a_.slice(0, i * rank, (i + 1) * rank)));  // (share, in)
  }
  return add(weight, scale(concat_rows(products), lora_scale_));
}

void Linear::merge_lora() {
  TESSERA_CHECK(lora_a_.defined(), "lora: this layer {} has no adapters to merge", weight.shape());
  const NoGrad off;
  copy_into(weight, effective_weight());
  remove_parameter("lora_a");
  remove_parameter("lora_b");
  lora_a_ = lora_b_ = {};
}

LayerNorm::LayerNorm(std::int64_t width, float initial_weight) {
  weight = parameter("weight", Tensor::full({width}, initial_weight));
  bias = parameter("bias", Tensor::zeros({width}));
}

Tensor LayerNorm::operator()(const Tensor& x) const { return layer_norm(x, weight, bias); }

NormedSum LayerNorm::of_sum(const Tensor& x, const Tensor& y) const {
  return add_layer_norm(x, y, weight, bias);
}

Embedding::Embedding(std::int64_t rows, std::int64_t width, float sigma, Rng& rng) {
  weight = parameter("weight", normal_init({rows, width}, sigma, rng));
}

Tensor Embedding::operator()(const Tensor& ids) const { return embedding(weight, ids); }

}  // namespace tessera
