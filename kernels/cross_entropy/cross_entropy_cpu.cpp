// One row at a time: maximum, exponentials and their sum in vectors, then softmax minus one-hot in
// place.
#include "kernels/cross_entropy/cross_entropy.h"

#include <cmath>

#include "core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy/cross_entropy_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

// Sum of exp(x - shift); the exponentials go to `out` unless it is null.
float SumOfExp(const float* x, std::int64_t n, float shift, float* out) {
  V acc = hn::Zero(D());
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const V e = Exp(hn::Sub(LoadN(m, x + i), hn::Set(D(), shift)));
    if (out != nullptr) {
      StoreN(e, m, out + i);
    }
    acc = hn::Add(acc, ZeroFrom(m, e));
  });
  return Total(acc);
}

// slope may be null, or alias the logits
float CrossEntropyRow(const float* z, std::int64_t n, std::int32_t target, float factor,
                      float* slope) {
  const float top = Largest(z, n), at_target = z[target];
  const float sum = SumOfExp(z, n, top, slope);
  if (slope != nullptr) {
    const V scale = hn::Set(D(), factor / sum);
    ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
      const V e = LoadN(m, slope + i);
      // Denormal slopes would make the products that follow a hundred times slower; NaN stays.
      const auto negligible = hn::Lt(e, hn::Set(D(), 1e-25F));
      StoreN(hn::Mul(hn::IfThenZeroElse(negligible, e), scale), m, slope + i);
    });
    slope[target] -= factor;
  }
  return logf(sum) + top - at_target;
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(CrossEntropyRow);

void softmax_cross_entropy(View<const float, 2> logits, View<const std::int32_t, 1> targets,
                           View<const float, 1> row_weight, float factor, View<float, 1> loss,
                           View<float, 2> slope, Stream) {
  constexpr std::int64_t kRows = 16;
  const std::int64_t rows = logits.shape[0];
  parallel_for(chunk_count(rows, kRows), [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kRows < rows ? (chunk + 1) * kRows : rows;
    for (std::int64_t r = chunk * kRows; r < end; ++r) {
      const float weight = row_weight.shape[0] > 0 ? row_weight(r) : 1.0F;
      float* out = slope.shape[0] > 0 ? slope.row(r) : nullptr;
      loss(r) = weight * HWY_DYNAMIC_DISPATCH(CrossEntropyRow)(logits.row(r), logits.shape[1],
                                                               targets(r), factor * weight, out);
    }
  });
}

}  // namespace tessera::cpu
#endif
