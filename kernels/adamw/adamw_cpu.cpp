// One streaming pass over the flat buffers: 28 bytes a parameter.
#include "kernels/adamw/adamw.h"

#include "core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/adamw/adamw_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

void UpdateRun(float* p, const float* g, float* m, float* v, std::int64_t n, const AdamWUpdate& u) {
  const V beta1 = hn::Set(D(), u.beta1), beta2 = hn::Set(D(), u.beta2);
  const V rest1 = hn::Set(D(), 1.0F - u.beta1), rest2 = hn::Set(D(), 1.0F - u.beta2);
  ForVectors(n, [&](std::int64_t i, std::int64_t k) HWY_ATTR {
    const V grad = hn::Mul(hn::Set(D(), u.clip), LoadN(k, g + i));
    const V mi = hn::MulAdd(beta1, LoadN(k, m + i), hn::Mul(rest1, grad));
    const V vi = hn::MulAdd(beta2, LoadN(k, v + i), hn::Mul(rest2, hn::Mul(grad, grad)));
    const V root = hn::MulAdd(hn::Sqrt(vi), hn::Set(D(), u.root_correction), hn::Set(D(), u.eps));
    const V kept = hn::Mul(hn::Set(D(), u.decay), LoadN(k, p + i));
    StoreN(hn::Sub(kept, hn::Div(hn::Mul(hn::Set(D(), u.step_size), mi), root)), k, p + i);
    StoreN(mi, k, m + i);
    StoreN(vi, k, v + i);
  });
}

// Squares and sums in double: they are exact products, and the norm decides whether to clip. A
// float vector is taken as its two halves.
double SquareRun(const float* x, std::int64_t n) {
#if HWY_TARGET == HWY_SCALAR
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return total;
#else
  const hn::Repartition<double, D> dd;
  const hn::Rebind<float, decltype(dd)> half;
  auto low = hn::Zero(dd), high = hn::Zero(dd);
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const V v = LoadN(m, x + i);
    const auto l = hn::PromoteTo(dd, hn::LowerHalf(half, v));
    const auto h = hn::PromoteTo(dd, hn::UpperHalf(half, v));
    low = hn::MulAdd(l, l, low);
    high = hn::MulAdd(h, h, high);
  });
  return hn::GetLane(hn::SumOfLanes(dd, hn::Add(low, high)));
#endif
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(UpdateRun);
HWY_EXPORT(SquareRun);

namespace {
constexpr std::int64_t kChunk = 1 << 15;
}

void squared_norm(View<const float, 1> x, double* out, Stream) {
  const std::int64_t n = x.shape[0];
  std::vector<double> partial(static_cast<std::size_t>(chunk_count(n, kChunk)), 0.0);
  parallel_for(chunk_count(n, kChunk), [&](std::int64_t chunk) {
    const std::int64_t i = chunk * kChunk;
    partial[static_cast<std::size_t>(chunk)] =
        HWY_DYNAMIC_DISPATCH(SquareRun)(x.data + i, n - i < kChunk ? n - i : kChunk);
  });
  *out = tree_sum(std::move(partial));
}

void adamw_update(View<float, 1> p, View<const float, 1> g, View<float, 1> m, View<float, 1> v,
                  AdamWUpdate update, Stream) {
  const std::int64_t n = p.shape[0];
  parallel_for(chunk_count(n, kChunk), [&](std::int64_t chunk) {
    const std::int64_t i = chunk * kChunk, size = n - i < kChunk ? n - i : kChunk;
    HWY_DYNAMIC_DISPATCH(UpdateRun)(p.data + i, g.data + i, m.data + i, v.data + i, size, update);
  });
}

}  // namespace tessera::cpu
#endif
