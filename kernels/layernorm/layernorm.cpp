#include "kernels/layernorm/layernorm.h"

#include "core/autograd.h"
#include "core/parallel.h"
#include "kernels/elementwise/elementwise.h"

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

template <class T>
PlacedView<const T, 2> rows_or_none(const Tensor& t) {
  return t.defined() ? t.view<const T, 2>() : PlacedView<const T, 2>{};
}

// With n = (x - mean) rstd and g' = dy * weight:
//   dx = rstd (g' - mean(g') - n mean(g' n));  dweight = sum dy n;  dbias = sum dy.
template <class T>
struct LayerNormBackward {
  Saved x, weight, mean, rstd;

  /// Gradients of x, weight, bias; `dsum`: what reaches x from elsewhere, or undefined.
  [[nodiscard]] std::vector<Tensor> gradients(const Tensor& dy0, const Tensor& dsum) const {
    const Tensor dy = dy0.contiguous();
    const std::int64_t t = dy.shape(0), d = dy.shape(1);
    const Device device = dy.device();
    Tensor dx = Tensor::empty({t, d}, dtype_of<T>, device);
    const Tensor partials =
        Tensor::empty({2, chunk_count(t, kLayerNormBlock), d}, DType::f32, device);
    Tensor dweight = Tensor::empty({d}, DType::f32, device),
           dbias = Tensor::empty({d}, DType::f32, device);
    kBackward<T>(device, dy.view<const T, 2>(), rows_or_none<T>(dsum), x.get().view<const T, 2>(),
                 weight.get().view<const float, 1>(), mean.get().view<const float, 1>(),
                 rstd.get().view<const float, 1>(), dx.view<T, 2>(), partials.view<float, 3>(),
                 Stream{});
    kReduce(device, partials.view<const float, 3>(), dweight.view<float, 1>(),
            dbias.view<float, 1>(), Stream{});
    return {dx, dweight, dbias};
  }
};

/// A forward pass, and what its backward needs.
template <class T>
struct Normalised {
  Tensor sum, y;  // sum: x itself where nothing was added
  LayerNormBackward<T> backward;
};

template <class T>
Normalised<T> normalise(const Tensor& x0, const Tensor& added0, const Tensor& weight,
                        const Tensor& bias, float eps) {
  const Tensor x = x0.detach().contiguous();
  const Tensor added = added0.defined() ? added0.detach().contiguous() : Tensor();
  Tensor sum = added.defined() ? Tensor::empty(x.shape(), dtype_of<T>, x.device()) : x;
  Tensor y = Tensor::empty(x.shape(), dtype_of<T>, x.device());
  const Tensor mean = Tensor::empty({x.shape(0)}, DType::f32, x.device()),
               rstd = Tensor::empty({x.shape(0)}, DType::f32, x.device());
  const LayerNormResidual<T> residual{rows_or_none<T>(added),
                                      added.defined() ? sum.view<T, 2>() : View<T, 2>{}};
  kForward<T>(x.device(), x.view<const T, 2>(), residual, weight.view<const float, 1>(),
              bias.view<const float, 1>(), eps, y.view<T, 2>(), mean.view<float, 1>(),
              rstd.view<float, 1>(), Stream{});
  return {sum, y, {Saved(sum), Saved(weight), Saved(mean), Saved(rstd)}};
}

template <class T>
Tensor norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  Normalised<T> n = normalise<T>(x, {}, weight, bias, eps);
  return differentiable(
      n.y, {x, weight, bias},
      [b = std::move(n.backward)](std::span<const Tensor> g) { return b.gradients(g[0], {}); });
}

template <class T>
NormedSum norm_of_sum(const Tensor& x, const Tensor& y, const Tensor& weight, const Tensor& bias,
                      float eps) {
  Normalised<T> n = normalise<T>(x, y, weight, bias, eps);
  const auto backward = [b = std::move(n.backward)](std::span<const Tensor> g) {
    if (!g[1].defined()) {
      return std::vector<Tensor>{g[0], g[0], {}, {}};
    }
    const Tensor dsum = g[0].defined() ? g[0].contiguous() : Tensor();
    std::vector<Tensor> all = b.gradients(g[1], dsum);
    all.insert(all.begin(), all.front());
    return all;
  };
  const std::vector<Tensor> outputs =
      differentiable(std::vector{n.sum, n.y}, {x, y, weight, bias}, backward);
  return {outputs[0], outputs[1]};
}

void check(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  TESSERA_CHECK(
      x.rank() == 2 && weight.shape() == Shape{x.shape(1)} && bias.shape() == weight.shape(),
      "{}: x must be (T, d), weight and bias (d), got {}, {}, {}", op, x.shape(), weight.shape(),
      bias.shape());
  check_same_device(op, {&x, &weight, &bias});
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  check("layer_norm", x, weight, bias);
  if (is_host_bf16(x)) {
    return norm<float>(x.to(DType::f32), weight, bias, eps).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? norm<bf16>(x, weight, bias, eps)
                                  : norm<float>(x, weight, bias, eps);
}

NormedSum add_layer_norm(const Tensor& x, const Tensor& y, const Tensor& weight, const Tensor& bias,
                         float eps) {
  check("add_layer_norm", x, weight, bias);
  TESSERA_CHECK(x.shape() == y.shape() && x.dtype() == y.dtype(),
                "add_layer_norm: x and y must be alike, got {} {} and {} {}", name(x.dtype()),
                x.shape(), name(y.dtype()), y.shape());
  check_same_device("add_layer_norm", {&x, &y});
  if (is_host_bf16(x)) {
    const Tensor sum = add(x, y);
    return {sum, layer_norm(sum, weight, bias, eps)};
  }
  return x.dtype() == DType::bf16 ? norm_of_sum<bf16>(x, y, weight, bias, eps)
                                  : norm_of_sum<float>(x, y, weight, bias, eps);
}

}  // namespace tessera
