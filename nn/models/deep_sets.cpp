#include "nn/models/deep_sets.h"

#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {

Tensor activate(const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::relu:
      return relu(x);
    case Activation::gelu:
      return gelu(x);
    case Activation::silu:
      return silu(x);
    case Activation::none:
      break;
  }
  return x;
}

std::vector<std::unique_ptr<Linear>> make_layers(std::int64_t in,
                                                 const std::vector<std::int64_t>& widths,
                                                 Rng& rng) {
  std::vector<std::unique_ptr<Linear>> layers;
  for (const std::int64_t out : widths) {
    layers.push_back(std::make_unique<Linear>(LinearConfig{.in = in, .out = out}, rng));
    in = out;
  }
  return layers;
}

std::vector<std::int64_t> with_outputs(std::vector<std::int64_t> hidden, std::int64_t outputs) {
  hidden.push_back(outputs);
  return hidden;
}

}  // namespace

DeepSetsConfig DeepSetsConfig::tau(std::int64_t features, std::int64_t width,
                                   std::int64_t outputs) {
  return {.features = features,
          .outputs = outputs,
          .phi = {width, width, width, width},
          .f = {width, width, width},
          .pooled = Activation::gelu};
}

DeepSetsConfig DeepSetsConfig::pfn(std::int64_t features, std::int64_t outputs) {
  return {.features = features,
          .outputs = outputs,
          .phi = {100, 100, 256},
          .f = {100, 100, 100},
          .pool = Pool::sum,
          .activation = Activation::relu};
}

DeepSets::DeepSets(const DeepSetsConfig& c, Rng& rng) : config(c), drop(c.dropout) {
  TESSERA_CHECK(!c.phi.empty(), "deep sets: phi needs at least one layer, got none");
  phi = make_layers(c.features, c.phi, rng);
  rho = make_layers(c.phi.back(), with_outputs(c.f, c.outputs), rng);
  for (std::size_t i = 0; i < phi.size(); ++i) {
    child(fmt::format("phi.{}", i), *phi[i]);
  }
  for (std::size_t i = 0; i < rho.size(); ++i) {
    child(fmt::format("f.{}", i), *rho[i]);
  }
  child("drop", drop);
}

Tensor DeepSets::operator()(const Tensor& x, const Segments& segments,
                            const DropoutStream& dropout) const {
  Tensor h = x;
  for (std::size_t i = 0; i + 1 < phi.size(); ++i) {
    h = drop((*phi[i])(h, config.activation), fork(fork(dropout, "phi"), i));
  }
  h = (*phi.back())(h, config.activation);
  Tensor y = activate(segment_pool(h, segments, config.pool), config.pooled);  // (B, width)
  for (std::size_t i = 0; i + 1 < rho.size(); ++i) {
    y = drop((*rho[i])(y, config.activation), fork(fork(dropout, "f"), i));
  }
  return (*rho.back())(y);
}

}  // namespace tessera
