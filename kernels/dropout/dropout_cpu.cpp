// Chunks of 2^14 elements; the draws are made in vectors and live in registers and L1 only.
#include "kernels/dropout/dropout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dropout/dropout_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/parallel.h"
#include "core/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

void Apply(const float* x, float p, RngKey key, std::int64_t first, std::int64_t n, float* y) {
  simd::HWY_NAMESPACE::DropRun(key, static_cast<std::uint64_t>(first), p, 1.0F / (1.0F - p), x, n,
                               y);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace tessera::cpu {

HWY_EXPORT(Apply);

void dropout_apply(View<const float, 1> x, float p, RngKey key, View<float, 1> y, Stream) {
  constexpr std::int64_t kChunk = 1 << 14;
  const std::int64_t n = x.shape[0];
  parallel_for(chunk_count(n, kChunk), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kChunk;
    HWY_DYNAMIC_DISPATCH(Apply)
    (x.data + begin, p, key, begin, kChunk < n - begin ? kChunk : n - begin, y.data + begin);
  });
}

}  // namespace tessera::cpu

#endif
