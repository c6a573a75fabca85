// Codes across lanes: one vector of scores per block of codes, the running best and its index in
// registers; the lanes are merged at the end, ties to the smaller index. No score is stored.
#include "kernels/vq/vq.h"

#include "core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vq/vq_cpu.cpp"
#include <hwy/foreach_target.h>

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

// fma in one rounding also where the level has no instruction for it (SSE4, scalar): the codes must
// not depend on it.
HWY_INLINE V Fma(V a, V b, V c) {
#if HWY_TARGET <= HWY_AVX2
  return hn::MulAdd(a, b, c);
#else
  HWY_ALIGN float x[hn::MaxLanes(D())], y[hn::MaxLanes(D())], z[hn::MaxLanes(D())];
  hn::Store(a, D(), x);
  hn::Store(b, D(), y);
  hn::Store(c, D(), z);
  for (std::int64_t i = 0; i < LaneCount(); ++i) {
    z[i] = __builtin_fmaf(x[i], y[i], z[i]);
  }
  return hn::Load(D(), z);
#endif
}

std::int32_t NearestRow(const float* z, std::int64_t width, const float* codes_t, std::int64_t ld,
                        std::int64_t k, const float* half_norm) {
  const hn::RebindToSigned<D> di;
  const V low = hn::Set(D(), -3.0e38F);
  V best = low;
  auto index = hn::Zero(di);
  for (std::int64_t j = 0; j < k; j += LaneCount()) {
    const std::int64_t m = k - j;
    V s = hn::Neg(LoadN(m, half_norm + j));
    for (std::int64_t d = 0; d < width; ++d) {
      s = Fma(hn::Set(D(), z[d]), LoadN(m, codes_t + d * ld + j), s);
    }
    s = hn::IfThenElse(Head(m), s, low);
    const auto better = hn::Gt(s, best);
    best = hn::IfThenElse(better, s, best);
    index = hn::IfThenElse(hn::RebindMask(di, better), hn::Iota(di, static_cast<std::int32_t>(j)),
                           index);
  }
  HWY_ALIGN float scores[hn::MaxLanes(D())];
  HWY_ALIGN std::int32_t indices[hn::MaxLanes(D())];
  hn::Store(best, D(), scores);
  hn::Store(index, di, indices);
  std::int32_t winner = indices[0];
  float top = scores[0];
  for (std::int64_t i = 1; i < LaneCount(); ++i) {
    if (scores[i] > top || (scores[i] == top && indices[i] < winner)) {
      top = scores[i];
      winner = indices[i];
    }
  }
  return winner;
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(NearestRow);

void vq_nearest(View<const float, 2> z, View<const float, 2> codes_t,
                View<const float, 1> half_norm, View<std::int32_t, 1> codes, Stream) {
  constexpr std::int64_t kRows = 32;
  const std::int64_t rows = z.shape[0];
  parallel_for(chunk_count(rows, kRows), [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kRows < rows ? (chunk + 1) * kRows : rows;
    for (std::int64_t r = chunk * kRows; r < end; ++r) {
      codes(r) = HWY_DYNAMIC_DISPATCH(NearestRow)(
          z.row(r), z.shape[1], codes_t.data, codes_t.stride[0], codes_t.shape[1], half_norm.data);
    }
  });
}

}  // namespace tessera::cpu
#endif
