#include "nn/linear.h"

#include <cmath>

#include "kernels/gather/gather.h"
#include "kernels/layernorm/layernorm.h"

namespace tessera {

Linear::Linear(const LinearConfig& config, Rng& rng) {
  const float bound = 1.0F / std::sqrt(static_cast<float>(config.in));
  weight = parameter("weight", uniform_init({config.out, config.in}, bound * config.scale, rng));
  if (config.bias) {
    bias = parameter("bias", uniform_init({config.out}, bound, rng));
  }
}

Tensor Linear::operator()(const Tensor& x, Activation activation) const {
  return linear(x, weight, bias, activation);
}

Tensor Linear::rows(const Tensor& x, std::int64_t begin, std::int64_t end) const {
  return linear(x, weight.slice(0, begin, end), bias.defined() ? bias.slice(0, begin, end) : bias);
}

LayerNorm::LayerNorm(std::int64_t width, float initial_weight) {
  weight = parameter("weight", Tensor::full({width}, initial_weight));
  bias = parameter("bias", Tensor::zeros({width}));
}

Tensor LayerNorm::operator()(const Tensor& x) const { return layer_norm(x, weight, bias); }

Embedding::Embedding(std::int64_t rows, std::int64_t width, float sigma, Rng& rng) {
  weight = parameter("weight", normal_init({rows, width}, sigma, rng));
}

Tensor Embedding::operator()(const Tensor& ids) const { return embedding(weight, ids); }

}  // namespace tessera
