#include "kernels/segment/segment.h"

#include "core/autograd.h"

namespace tessera {
namespace {
// The tables of an element type.
template <class T>
constexpr auto kForward = TESSERA_KERNEL(segment_forward);
template <class T>
constexpr auto kBackward = TESSERA_KERNEL(segment_backward);
template <class T>
constexpr auto kMaxForward = TESSERA_KERNEL(segment_max_forward);
template <class T>
constexpr auto kMaxBackward = TESSERA_KERNEL(segment_max_backward);
template <>
constexpr auto kForward<bf16> = TESSERA_DEVICE_KERNEL(segment_forward_bf16);
template <>
constexpr auto kBackward<bf16> = TESSERA_DEVICE_KERNEL(segment_backward_bf16);
template <>
constexpr auto kMaxForward<bf16> = TESSERA_DEVICE_KERNEL(segment_max_forward_bf16);
template <>
constexpr auto kMaxBackward<bf16> = TESSERA_DEVICE_KERNEL(segment_max_backward_bf16);

// y_b = x_r, r the first row of the largest value:  dx_r = dy_b, other rows 0.
template <class T>
Tensor max_pool(const Tensor& x0, const Segments& segments) {
  const Tensor x = x0.detach().contiguous();
  const Device device = x.device();
  const Shape shape{segments.count(), x.shape(1)};
  Tensor y = Tensor::empty(shape, dtype_of<T>, device);
  const Tensor row = Tensor::empty(shape, DType::i32, device);
  kMaxForward<T>(device, x.view<const T, 2>(), segments.on(device).view<const std::int32_t, 1>(),
                 y.view<T, 2>(), row.view<std::int32_t, 2>(), Stream{});
  const auto backward = [saved = Saved(row), segments, t = x.shape(0)](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    Tensor dx = Tensor::empty({t, dy.shape(1)}, dtype_of<T>, dy.device());
    const Tensor& from = saved.get();
    kMaxBackward<T>(dy.device(), dy.view<const T, 2>(), from.view<const std::int32_t, 2>(),
                    segments.on(dy.device()).view<const std::int32_t, 1>(), dx.view<T, 2>(),
                    Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}

// y_b = w_b sum of x_i, w_b = 1 or 1 / n_b:  dx_i = w_b dy_b.
template <class T>
Tensor sum_pool(const Tensor& x0, const Segments& segments, Pool pool) {
  const Tensor x = x0.detach().contiguous();
  const Device device = x.device();
  Tensor y = Tensor::empty({segments.count(), x.shape(1)}, dtype_of<T>, device);
  kForward<T>(device, x.view<const T, 2>(), segments.on(device).view<const std::int32_t, 1>(), pool,
              y.view<T, 2>(), Stream{});
  const auto backward = [segments, pool, t = x.shape(0)](std::span<const Tensor> g) {
    const Tensor dy = g[0].contiguous();
    Tensor dx = Tensor::empty({t, dy.shape(1)}, dtype_of<T>, dy.device());
    kBackward<T>(dy.device(), dy.view<const T, 2>(),
                 segments.on(dy.device()).view<const std::int32_t, 1>(), pool, dx.view<T, 2>(),
                 Stream{});
    return std::vector<Tensor>{dx};
  };
  return differentiable(y, {x0}, backward);
}

template <class T>
Tensor pool_of(const Tensor& x, const Segments& segments, Pool pool) {
  return pool == Pool::max ? max_pool<T>(x, segments) : sum_pool<T>(x, segments, pool);
}

}  // namespace

Tensor segment_pool(const Tensor& x, const Segments& segments, Pool pool) {
  TESSERA_CHECK(x.rank() == 2 && x.shape(0) == segments.total(),
                "segment_pool: x must be ({}, d), got {}", segments.total(), x.shape());
  if (is_host_bf16(x)) {
    return pool_of<float>(x.to(DType::f32), segments, pool).to(DType::bf16);
  }
  return x.dtype() == DType::bf16 ? pool_of<bf16>(x, segments, pool)
                                  : pool_of<float>(x, segments, pool);
}

}  // namespace tessera
