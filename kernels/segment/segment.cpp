#include "kernels/segment/segment.h"

#include "core/autograd.h"

namespace tessera {
namespace {
constexpr auto kForward = TESSERA_KERNEL(segment_forward);
constexpr auto kBackward = TESSERA_KERNEL(segment_backward);
constexpr auto kMaxForward = TESSERA_KERNEL(segment_max_forward);
constexpr auto kMaxBackward = TESSERA_KERNEL(segment_max_backward);

// y_b = x_r, r the first row of the largest value:  dx_r = dy_b, other rows 0.
Tensor max_pool(const Tensor& x0, const Segments& segments) {
  const Tensor x = x0.detach().contiguous();
  const Device device = x.device();
  const Shape shape{segments.count(), x.shape(1)};
  Tensor y = Tensor::empty(shape, DType::f32, device);
  const Tensor row = Tensor::empty(shape, DType::i32, device);
  kMaxForward(device, x.view<const float, 2>(), segments.on(device).view<const std::int32_t, 1>(),
              y.view<float, 2>(), row.view<std::int32_t, 2>(), Stream{});
  const auto backward = [saved = Saved(row), t = x.shape(0)](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    Tensor dx = Tensor::zeros({t, dy.shape(1)}, DType::f32, dy.device());
    kMaxBackward(dy.device(), dy.view<const float, 2>(), saved.get().view<const std::int32_t, 2>(),
                 dx.view<float, 2>(), Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}
}  // namespace

// y_b = w_b sum of x_i, w_b = 1 or 1 / n_b:  dx_i = w_b dy_b.
Tensor segment_pool(const Tensor& x0, const Segments& segments, Pool pool) {
  TESSERA_CHECK(x0.rank() == 2 && x0.shape(0) == segments.total(),
                "segment_pool: x must be ({}, d), got {}", segments.total(), x0.shape());
  if (pool == Pool::max) {
    return max_pool(x0, segments);
  }
  const Tensor x = x0.detach().contiguous();
  const Device device = x.device();
  Tensor y = Tensor::empty({segments.count(), x.shape(1)}, DType::f32, device);
  kForward(device, x.view<const float, 2>(), segments.on(device).view<const std::int32_t, 1>(),
           pool, y.view<float, 2>(), Stream{});
  const auto backward = [segments, pool, t = x.shape(0)](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    Tensor dx = Tensor::empty({t, dy.shape(1)}, DType::f32, dy.device());
    kBackward(dy.device(), dy.view<const float, 2>(),
              segments.on(dy.device()).view<const std::int32_t, 1>(), pool, dx.view<float, 2>(),
              Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}

}  // namespace tessera
