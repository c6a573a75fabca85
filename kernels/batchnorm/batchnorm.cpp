#include "kernels/batchnorm/batchnorm.h"

#include "core/autograd.h"
#include "core/parallel.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {

constexpr auto kStatistics = TESSERA_KERNEL(batchnorm_statistics);
constexpr auto kInverse = TESSERA_KERNEL(batchnorm_inverse);
constexpr auto kForward = TESSERA_KERNEL(batchnorm_forward);
constexpr auto kBackward = TESSERA_KERNEL(batchnorm_backward);

void check_shapes(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  TESSERA_CHECK(
      x.rank() == 2 && weight.shape() == Shape{x.shape(1)} && bias.shape() == weight.shape(),
      "batch_norm: x must be (N, C), weight and bias (C), got {}, {}, {}", x.shape(),
      weight.shape(), bias.shape());
  check_same_device("batch_norm", {&x, &weight, &bias});
}

Tensor inverse_deviation(const Tensor& variance0, float eps) {
  const Tensor variance = variance0.detach().contiguous();
  Tensor rstd = Tensor::empty(variance.shape(), DType::f32, variance.device());
  kInverse(rstd.device(), variance.view<const float, 1>(), eps, rstd.view<float, 1>(), Stream{});
  return rstd;
}

Tensor partial_sums(const Tensor& x) {
  return Tensor::empty({2, chunk_count(x.shape(0), kBatchNormBlock), x.shape(1)}, DType::f32,
                       x.device());
}

// With n = (x - mean) rstd, all means over rows:
//   dweight = sum dy n;  dbias = sum dy;  dx = weight rstd (dy - dbias / N - n dweight / N).
struct BatchNormBackward {
  Saved x, weight, mean, rstd;

  std::vector<Tensor> operator()(std::span<const Tensor> g) const {
    const Tensor dy = g[0].contiguous();
    const Device device = dy.device();
    const Tensor partials = partial_sums(dy);
    Tensor dx = Tensor::empty(dy.shape(), DType::f32, device);
    Tensor dweight = Tensor::empty({dy.shape(1)}, DType::f32, device);
    Tensor dbias = Tensor::empty({dy.shape(1)}, DType::f32, device);
    kBackward(device, dy.view<const float, 2>(), x.get().view<const float, 2>(),
              mean.get().view<const float, 1>(), rstd.get().view<const float, 1>(),
              weight.get().view<const float, 1>(), partials.view<float, 3>(), dx.view<float, 2>(),
              dweight.view<float, 1>(), dbias.view<float, 1>(), Stream{});
    return {dx, dweight, dbias};
  }
};

}  // namespace

BatchNormResult batch_norm(const Tensor& x0, const Tensor& weight0, const Tensor& bias, float eps) {
  check_shapes(x0, weight0, bias);
  const Tensor x = x0.detach().contiguous(), weight = weight0.detach().contiguous();
  const std::int64_t n = x.shape(0);
  const Device device = x.device();
  Tensor y = Tensor::empty(x.shape(), DType::f32, device);
  const Tensor mean = Tensor::zeros({x.shape(1)}, DType::f32, device);
  const Tensor variance = Tensor::zeros({x.shape(1)}, DType::f32, device);
  if (n > 0) {
    kStatistics(device, x.view<const float, 2>(), partial_sums(x).view<float, 3>(),
                mean.view<float, 1>(), variance.view<float, 1>(), Stream{});
  }
  const Tensor rstd = inverse_deviation(variance, eps);
  kForward(device, x.view<const float, 2>(), mean.view<const float, 1>(),
           rstd.view<const float, 1>(), weight.view<const float, 1>(),
           bias.detach().contiguous().view<const float, 1>(), y.view<float, 2>(), Stream{});
  const float unbiased = n < 2 ? 0.0F : static_cast<float>(n) / static_cast<float>(n - 1);
  return {differentiable(y, {x0, weight0, bias},
                         BatchNormBackward{Saved(x), Saved(weight), Saved(mean), Saved(rstd)}),
          mean, scale(variance, unbiased)};
}

Tensor batch_norm_with(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& mean, const Tensor& variance, float eps) {
  check_shapes(x, weight, bias);
  const Tensor centred = add_rows(x, scale(mean.detach(), -1.0F));  // (N, C)
  const Tensor slope = mul(weight, inverse_deviation(variance, eps));
  return add_rows(mul_rows(centred, slope), bias);
}

}  // namespace tessera
