#include "kernels/dropout/dropout.h"

#include "core/autograd.h"

namespace tessera {
namespace {

constexpr auto kApply = TESSERA_KERNEL(dropout_apply);

Tensor masked(const Tensor& x0, float p, RngKey key) {
  const Tensor x = x0.detach().contiguous();
  Tensor y = Tensor::empty(x.shape(), DType::f32, x.device());
  kApply(x.device(), x.reshape({x.size()}).view<const float, 1>(), p, key,
         y.reshape({y.size()}).view<float, 1>(), Stream{});
  return y;
}

}  // namespace

// y = m x / (1 - p):  dx = m dy / (1 - p), the same map.
Tensor dropout(const Tensor& x, float p, RngKey key) {
  TESSERA_CHECK(p >= 0.0F && p < 1.0F, "dropout: p must be in [0, 1), got {}", p);
  if (p == 0.0F) {
    return x;
  }
  return differentiable(masked(x, p, key), {x}, [p, key](std::span<const Tensor> g) {
    return std::vector<Tensor>{masked(g[0], p, key)};
  });
}

}  // namespace tessera
