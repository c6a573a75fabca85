#include "kernels/layernorm/layernorm.h"

#include "core/autograd.h"
#include "core/parallel.h"

namespace tessera {
namespace {

// The tables of an element type.
template <class T>
constexpr auto kForward = TESSERA_KERNEL(layernorm_forward);
template <class T>
constexpr auto kBackward = TESSERA_KERNEL(layernorm_backward);
template <>
constexpr auto kForward<bf16> = TESSERA_DEVICE_KERNEL(layernorm_forward_bf16);
template <>
constexpr auto kBackward<bf16> = TESSERA_DEVICE_KERNEL(layernorm_backward_bf16);
constexpr auto kReduce = TESSERA_KERNEL(layernorm_reduce);

// With n = (x - mean) rstd and g' = dy * weight:
//   dx = rstd (g' - mean(g') - n mean(g' n));  dweight = sum dy n;  dbias = sum dy.
template <class T>
struct LayerNormBackward {
  Saved x, weight, mean, rstd;

  std::vector<Tensor> operator()(std::span<const Tensor> g) const {
    const Tensor dy = g[0].contiguous();
    const std::int64_t t = dy.shape(0), d = dy.shape(1);
    const Device device = dy.device();
    Tensor dx = Tensor::empty({t, d}, dtype_of<T>, device);
    const Tensor partials =
        Tensor::empty({2, chunk_count(t, kLayerNormBlock), d}, DType::f32, device);
    Tensor dweight = Tensor::empty({d}, DType::f32, device),
           dbias = Tensor::empty({d}, DType::f32, device);
    kBackward<T>(device, dy.view<const T, 2>(), x.get().view<const T, 2>(),
                 weight.get().view<const float, 1>(), mean.get().view<const float, 1>(),
                 rstd.get().view<const float, 1>(), dx.view<T, 2>(), partials.view<float, 3>(),
                 Stream{});
    kReduce(device, partials.view<const float, 3>(), dweight.view<float, 1>(),
            dbias.view<float, 1>(), Stream{});
    return {dx, dweight, dbias};
  }
};

template <class T>
Tensor normalise(const Tensor& x0, const Tensor& weight, const Tensor& bias, float eps) {
  const Tensor x = x0.detach().contiguous();
  const std::int64_t t = x.shape(0);
  Tensor y = Tensor::empty(x.shape(), dtype_of<T>, x.device());
  const Tensor mean = Tensor::empty({t}, DType::f32, x.device()),
               rstd = Tensor::empty({t}, DType::f32, x.device());
  kForward<T>(x.device(), x.view<const T, 2>(), weight.view<const float, 1>(),
              bias.view<const float, 1>(), eps, y.view<T, 2>(), mean.view<float, 1>(),
              rstd.view<float, 1>(), Stream{});
  return differentiable(y, {x0, weight, bias},
                        LayerNormBackward<T>{Saved(x), Saved(weight), Saved(mean), Saved(rstd)});
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  TESSERA_CHECK(
      x.rank() == 2 && weight.shape() == Shape{x.shape(1)} && bias.shape() == weight.shape(),
      "layer_norm: x must be (T, d), weight and bias (d), got {}, {}, {}", x.shape(),
      weight.shape(), bias.shape());
  if (is_host_bf16(x)) {
    return normalise<float>(x.to(DType::f32), weight, bias, eps).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? normalise<bf16>(x, weight, bias, eps)
                                  : normalise<float>(x, weight, bias, eps);
}

}  // namespace tessera
