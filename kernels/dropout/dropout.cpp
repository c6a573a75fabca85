#include "kernels/dropout/dropout.h"

#include "core/autograd.h"

namespace tessera {
namespace {

template <class T>
constexpr auto kApply = TESSERA_KERNEL(dropout_apply);
template <>
constexpr auto kApply<bf16> = TESSERA_DEVICE_KERNEL(dropout_apply_bf16);

template <class T>
Tensor masked_of(const Tensor& x0, float p, RngKey key) {
  const Tensor x = x0.detach().contiguous();
  Tensor y = Tensor::empty(x.shape(), dtype_of<T>, x.device());
  kApply<T>(x.device(), x.reshape({x.size()}).view<const T, 1>(), p, key,
            y.reshape({y.size()}).view<T, 1>(), Stream{});
  return y;
}

Tensor masked(const Tensor& x, float p, RngKey key) {
  if (is_host_bf16(x)) {
    return masked_of<float>(x.to(DType::f32), p, key).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? masked_of<bf16>(x, p, key) : masked_of<float>(x, p, key);
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
