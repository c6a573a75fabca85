#include "kernels/layernorm/layernorm.h"

#include "core/autograd.h"
#include "core/parallel.h"

namespace tessera {
namespace {

constexpr auto kForward = TESSERA_KERNEL(layernorm_forward);
constexpr auto kBackward = TESSERA_KERNEL(layernorm_backward);
constexpr auto kReduce = TESSERA_KERNEL(layernorm_reduce);

// With n = (x - mean) rstd and g' = dy * weight:
//   dx = rstd (g' - mean(g') - n mean(g' n));  dweight = sum dy n;  dbias = sum dy.
struct LayerNormBackward {
  Saved x, weight, mean, rstd;

  std::vector<Tensor> operator()(std::span<const Tensor> g) const {
    const Tensor dy = g[0].contiguous();
    const std::int64_t t = dy.shape(0), d = dy.shape(1);
    const Device device = dy.device();
    Tensor dx = Tensor::empty({t, d}, DType::f32, device);
    const Tensor partials = Tensor::empty({2, chunk_count(t, kLayerNormBlock), d}, DType::f32, device);
    Tensor dweight = Tensor::empty({d}, DType::f32, device), dbias = Tensor::empty({d}, DType::f32, device);
    kBackward(device, dy.view<const float, 2>(), x.get().view<const float, 2>(), weight.get().view<const float, 1>(),
              mean.get().view<const float, 1>(), rstd.get().view<const float, 1>(), dx.view<float, 2>(),
              partials.view<float, 3>(), Stream{});
    kReduce(device, partials.view<const float, 3>(), dweight.view<float, 1>(), dbias.view<float, 1>(), Stream{});
    return {dx, dweight, dbias};
  }
};

}  // namespace

Tensor layer_norm(const Tensor& x0, const Tensor& weight, const Tensor& bias, float eps) {
  TESSERA_CHECK(x0.rank() == 2 && weight.shape() == Shape{x0.shape(1)} && bias.shape() == weight.shape(),
                "layer_norm: x must be (T, d), weight and bias (d), got {}, {}, {}", x0.shape(), weight.shape(),
                bias.shape());
  const Tensor x = x0.detach().contiguous();
  const std::int64_t t = x.shape(0);
  Tensor y = Tensor::empty(x.shape(), DType::f32, x.device());
  const Tensor mean = Tensor::empty({t}, DType::f32, x.device()), rstd = Tensor::empty({t}, DType::f32, x.device());
  kForward(x.device(), x.view<const float, 2>(), weight.view<const float, 1>(), bias.view<const float, 1>(), eps,
           y.view<float, 2>(), mean.view<float, 1>(), rstd.view<float, 1>(), Stream{});
  return differentiable(y, {x0, weight, bias},
                        LayerNormBackward{Saved(x), Saved(weight), Saved(mean), Saved(rstd)});
}

}  // namespace tessera
