// Bound by memory: whole vectors in chunks of 2^14 elements, products rounded before they are
// added.
#include "kernels/elementwise/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/elementwise_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

void ProductRun(const float* a, const float* b, float* out, std::int64_t n) {
  ForVectors(n, [&](std::int64_t i, std::int64_t m)
                    HWY_ATTR { StoreN(hn::Mul(LoadN(m, a + i), LoadN(m, b + i)), m, out + i); });
}

// b is not read where beta is 0.
void SumRun(float alpha, const float* a, float beta, const float* b, float* out, std::int64_t n) {
  const V va = hn::Set(D(), alpha), vb = hn::Set(D(), beta);
  if (beta == 0.0F) {
    ForVectors(n, [&](std::int64_t i, std::int64_t m)
                      HWY_ATTR { StoreN(hn::Mul(va, LoadN(m, a + i)), m, out + i); });
    return;
  }
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const V scaled = hn::Mul(vb, LoadN(m, b + i));
    StoreN(hn::Add(hn::Mul(va, LoadN(m, a + i)), scaled), m, out + i);
  });
}

void PointwiseRun(Pointwise kind, float alpha, const float* a, float beta, const float* b,
                  float* out, std::int64_t n) {
  if (kind == Pointwise::product) {
    ProductRun(a, b, out, n);
  } else {
    SumRun(alpha, a, beta, b, out, n);
  }
}

void CombineRows(Pointwise kind, View<const float, 2> x, const float* row, View<float, 2> y,
                 std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    PointwiseRun(kind, 1.0F, x.row(r), 1.0F, row, y.row(r), x.shape[1]);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(PointwiseRun);
HWY_EXPORT(CombineRows);

namespace {
constexpr std::int64_t kChunk = 1 << 14;
}  // namespace

void pointwise(Pointwise kind, float alpha, View<const float, 1> a, float beta,
               View<const float, 1> b, View<float, 1> out, Stream) {
  const std::int64_t n = out.shape[0];
  parallel_for(chunk_count(n, kChunk), [&](std::int64_t chunk) {
    const std::int64_t i = chunk * kChunk, size = n - i < kChunk ? n - i : kChunk;
    HWY_DYNAMIC_DISPATCH(PointwiseRun)
    (kind, alpha, a.data + i, beta, b.data + i, out.data + i, size);
  });
}

void rowwise(Pointwise kind, View<const float, 2> x, View<const float, 1> row, View<float, 2> y,
             Stream) {
  const std::int64_t rows = x.shape[0], block = 1 + kChunk / (x.shape[1] + 1);
  parallel_for(chunk_count(rows, block), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * block, end = begin + block < rows ? begin + block : rows;
    HWY_DYNAMIC_DISPATCH(CombineRows)(kind, x, row.data, y, begin, end);
  });
}

}  // namespace tessera::cpu
#endif
