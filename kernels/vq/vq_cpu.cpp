// Codes across lanes: one vector of scores per row and block of codes, the running best and its
// index in registers; the lanes are merged at the end, ties to the smaller index. No score is
// stored.
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

using Index = hn::RebindToSigned<D>;

// Best score and its index in each lane.
struct Best {
  V score;
  hn::Vec<Index> index;
};

HWY_INLINE void Take(V s, std::int64_t first, Best& best) {
  const Index di;
  const auto better = hn::Gt(s, best.score);
  best.score = hn::IfThenElse(better, s, best.score);
  best.index = hn::IfThenElse(hn::RebindMask(di, better),
                              hn::Iota(di, static_cast<std::int32_t>(first)), best.index);
}

// Merges the lanes.
HWY_INLINE std::int32_t Winner(const Best& best) {
  HWY_ALIGN float scores[hn::MaxLanes(D())];
  HWY_ALIGN std::int32_t indices[hn::MaxLanes(D())];
  hn::Store(best.score, D(), scores);
  hn::Store(best.index, Index(), indices);
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

struct Problem {
  const float* z;
  std::int64_t z_stride, width;
  const float* codes_t;
  std::int64_t ld, k;
  const float* half_norm;
};

// Scores of kRows rows against the codes from j on; m of them count. The rows share each load of
// the codes; each row's chain of additions stays that of a lone row. Unrolled in full: arrays of
// vectors stay in registers only if every index is a constant.
template <int kRows, bool kFull>
HWY_INLINE void ScoreBlock(const Problem& p, const float* z, std::int64_t j, Best* best) {
  const std::int64_t m = kFull ? LaneCount() : p.k - j;
  const V start = hn::Neg(kFull ? hn::LoadU(D(), p.half_norm + j) : LoadN(m, p.half_norm + j));
  V s[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    s[r] = start;
  }
  const float* code = p.codes_t + j;
  for (std::int64_t d = 0; d < p.width; ++d, code += p.ld) {
    const V e = kFull ? hn::LoadU(D(), code) : LoadN(m, code);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      s[r] = Fma(hn::Set(D(), z[r * p.z_stride + d]), e, s[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    Take(kFull ? s[r] : hn::IfThenElse(Head(m), s[r], hn::Set(D(), -3.0e38F)), j, best[r]);
  }
}

template <int kRows>
HWY_INLINE void NearestGroup(const Problem& p, const float* z, std::int32_t* out) {
  Best best[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    best[r] = {hn::Set(D(), -3.0e38F), hn::Zero(Index())};
  }
  std::int64_t j = 0;
  for (; j + LaneCount() <= p.k; j += LaneCount()) {
    ScoreBlock<kRows, true>(p, z, j, best);
  }
  if (j < p.k) {
    ScoreBlock<kRows, false>(p, z, j, best);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    out[r] = Winner(best[r]);
  }
}

void NearestRows(const float* z, std::int64_t z_stride, std::int64_t width, const float* codes_t,
                 std::int64_t ld, std::int64_t k, const float* half_norm, std::int64_t rows,
                 std::int32_t* out) {
  const Problem p{z, z_stride, width, codes_t, ld, k, half_norm};
  std::int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    NearestGroup<8>(p, z + r * z_stride, out + r);
  }
  for (; r < rows; ++r) {
    NearestGroup<1>(p, z + r * z_stride, out + r);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(NearestRows);

void vq_nearest(View<const float, 2> z, View<const float, 2> codes_t,
                View<const float, 1> half_norm, View<std::int32_t, 1> codes, Stream) {
  constexpr std::int64_t kRows = 32;
  const std::int64_t rows = z.shape[0];
  parallel_for(chunk_count(rows, kRows), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kRows, left = rows - begin;
    HWY_DYNAMIC_DISPATCH(NearestRows)
    (z.row(begin), z.stride[0], z.shape[1], codes_t.data, codes_t.stride[0], codes_t.shape[1],
     half_norm.data, left < kRows ? left : kRows, codes.data + begin);
  });
}

void vq_prepare(View<const float, 2> codes, View<float, 2> codes_t, View<float, 1> half_norm,
                Stream) {
  for (std::int64_t k = 0; k < codes.shape[0]; ++k) {
    float sum = 0;
    for (std::int64_t d = 0; d < codes.shape[1]; ++d) {
      codes_t(d, k) = codes(k, d);
      sum = __builtin_fmaf(codes(k, d), codes(k, d), sum);
    }
    half_norm(k) = 0.5F * sum;
  }
}

void vq_effective(View<const float, 2> codebook, View<const float, 1> scale,
                  View<const float, 1> bias, float affine_lr, View<float, 2> out, Stream) {
  for (std::int64_t k = 0; k < out.shape[0]; ++k) {
    for (std::int64_t d = 0; d < out.shape[1]; ++d) {
      out(k, d) = (1 + affine_lr * scale(d)) * codebook(k, d) + affine_lr * bias(d);
    }
  }
}

void vq_quantize(View<const float, 2> z, View<const std::int32_t, 1> codes,
                 View<const float, 2> codebook, View<float, 2> q, View<float, 1> partials, Stream) {
  const std::int64_t n = z.size(), width = z.shape[1];
  parallel_for(chunk_count(n, kVqBlock), [&](std::int64_t block) {
    const std::int64_t end = (block + 1) * kVqBlock < n ? (block + 1) * kVqBlock : n;
    double sum = 0;
    for (std::int64_t at = block * kVqBlock; at < end; ++at) {
      const std::int64_t i = at / width, d = at % width;
      const float e = codebook(codes(i), d);
      const double r = static_cast<double>(z(i, d)) - static_cast<double>(e);
      q(i, d) = e;
      sum += r * r;
    }
    partials(block) = static_cast<float>(sum);
  });
}

void vq_backward(View<const float, 2> dq, View<const float, 1> dloss, View<const float, 2> z,
                 View<const float, 2> q, VqSlopes slopes, View<float, 2> dz, View<float, 2> dcode,
                 Stream) {
  const float unit = dloss.shape[0] > 0 ? dloss(0) * slopes.unit : 0.0F;
  for (std::int64_t i = 0; i < z.shape[0]; ++i) {
    for (std::int64_t d = 0; d < z.shape[1]; ++d) {
      const float up = dq.shape[0] > 0 ? dq(i, d) : 0.0F, slope = unit * (z(i, d) - q(i, d));
      dz(i, d) = up + (1 - slopes.beta) * slope;
      dcode(i, d) = slopes.nu * up - slopes.beta * slope;
    }
  }
}

void vq_codebook_backward(View<const float, 2> sums, View<const float, 2> codebook,
                          View<const float, 1> scale, float affine_lr, View<float, 2> de,
                          View<float, 1> ds, View<float, 1> db, Stream) {
  for (std::int64_t d = 0; d < sums.shape[1]; ++d) {
    ds(d) = db(d) = 0;
  }
  for (std::int64_t k = 0; k < sums.shape[0]; ++k) {
    for (std::int64_t d = 0; d < sums.shape[1]; ++d) {
      de(k, d) = (1 + affine_lr * scale(d)) * sums(k, d);
      ds(d) += affine_lr * sums(k, d) * codebook(k, d);
      db(d) += affine_lr * sums(k, d);
    }
  }
}

}  // namespace tessera::cpu
#endif
