// The search is a product on the steps of kernels/matmul's tile: rows times panels of codes, the
// sums starting at -|e|^2 / 2. No score is stored. The codes are cut into groups of panels. Within
// a group the best score of each row and lane is a maximum in a register; only between groups is it
// compared and the group noted. Which code of the group it was is found at the end by computing the
// group of the winner again. Short codes are bound by the maxima: two for 2 D multiply-adds
// (vq_bench).
#include "kernels/vq/vq.h"

#include "core/parallel.h"
#include "core/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vq/vq_cpu.cpp"
#include <hwy/foreach_target.h>

#include "kernels/matmul/tile-inl.h"

#ifndef TESSERA_VQ_ONCE
#define TESSERA_VQ_ONCE
namespace tessera::cpu {
/// Codes as panels [width][two vectors of codes], and their half norms, both to whole panels.
struct CodePanels {
  float *values, *half_norm;
  std::int64_t width, count;
};

constexpr std::int64_t kVqRows = 112;  // of one chunk: their best scores stay in L1
constexpr float kNever = -3.0e38F;     // below every score
}  // namespace tessera::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
using namespace tile::HWY_NAMESPACE;  // NOLINT: the tile and the helpers of this target

std::int64_t CodesOfPanel() { return 2 * LaneCount(); }
// The same, inlined: a call in the inner loop would spill every sum.
HWY_INLINE std::int64_t PanelCodes() { return 2 * LaneCount(); }

// Fills panel p. Codes that are not finite and places beyond the last code get the score kNever.
void PackCodes(View<const float, 2> codes_t, View<const float, 1> half_norm, std::int64_t p,
               const CodePanels& out) {
  const std::int64_t lanes = LaneCount(), n = CodesOfPanel(), first = p * n;
  const std::int64_t left = half_norm.shape[0] - first;
  float* panel = out.values + first * out.width;
  for (std::int64_t d = 0; d < out.width; ++d) {
    const float* from = codes_t.row(d) + first;
    hn::StoreU(LoadN(left, from), D(), panel + d * n);
    hn::StoreU(left > lanes ? LoadN(left - lanes, from + lanes) : hn::Zero(D()), D(),
               panel + d * n + lanes);
  }
  for (std::int64_t j = 0; j < n; ++j) {
    const bool usable = j < left && half_norm(first + j) < -kNever;
    out.half_norm[first + j] = usable ? half_norm(first + j) : -kNever;
    for (std::int64_t d = 0; d < out.width && !usable; ++d) {
      panel[d * n + j] = 0.0F;
    }
  }
}

#if HWY_TARGET <= HWY_AVX2
using Index = hn::RebindToSigned<D>;

#if HWY_TARGET <= HWY_AVX3
constexpr int kSearchRows = 8;  // 16 sums, 8 best scores, 2 vectors of codes: 27 of 32 registers
#else
constexpr int kSearchRows = 4;  // 15 of 16
#endif

/// Panels [first, last) of the codes.
struct Group {
  const CodePanels* codes;
  std::int64_t first, last;

  [[nodiscard]] HWY_INLINE const float* Values(std::int64_t p) const {
    return codes->values + p * PanelCodes() * codes->width;
  }
  [[nodiscard]] HWY_INLINE V Start(std::int64_t p, int vector) const {
    return hn::Neg(hn::Load(D(), codes->half_norm + p * PanelCodes() + vector * LaneCount()));
  }
};

// sum[r] = scores of row r of z against panel p.
template <int kRows>
HWY_INLINE void PanelScores(const Group& group, const Operand& z, std::int64_t p,
                            V (&sum)[kRows][2]) {
  const std::int64_t width = group.codes->width, n = PanelCodes();
  const V low = group.Start(p, 0), high = group.Start(p, 1);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    sum[r][0] = low;
    sum[r][1] = high;
  }
  const float* b = group.Values(p);
  Walk<kRows, Layout::rows> walk(z);
  std::int64_t d = 0;
  for (; d + 4 <= width; d += 4) {
    AddSteps<4>(walk, b, n, sum);
  }
  for (; d < width; ++d) {
    AddSteps<1>(walk, b, n, sum);
  }
}

// Best score of each lane so far, and its group, for kRows rows. Within the group one maximum a
// vector; Max gives its second operand where the first is NaN.
template <int kRows>
HWY_NOINLINE void SearchGroup(const Group& group, const Operand& z, std::int32_t number,
                              float* score, std::int32_t* groups) {
  V top[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    top[r] = hn::Set(D(), kNever);
  }
  for (std::int64_t p = group.first; p < group.last; ++p) {
    V sum[kRows][2];
    PanelScores<kRows>(group, z, p, sum);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      top[r] = hn::Max(sum[r][1], hn::Max(sum[r][0], top[r]));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t at = r * LaneCount();
    const V best = hn::Load(D(), score + at);
    const auto better = hn::Gt(top[r], best);
    hn::Store(hn::IfThenElse(better, top[r], best), D(), score + at);
    const auto old = hn::Load(Index(), groups + at);
    hn::Store(hn::IfThenElse(hn::RebindMask(Index(), better), hn::Set(Index(), number), old),
              Index(), groups + at);
  }
}

// SearchGroup for a number of rows known at run time, 1 to kSearchRows.
template <int... kRowsLessOne>
HWY_INLINE void CallSearch(std::integer_sequence<int, kRowsLessOne...>, std::int64_t rows,
                           const Group& group, const Operand& z, std::int32_t number, float* score,
                           std::int32_t* groups) {
  using Function = void (*)(const Group&, const Operand&, std::int32_t, float*, std::int32_t*);
  static constexpr Function kSearches[] = {SearchGroup<kRowsLessOne + 1>...};
  kSearches[rows - 1](group, z, number, score, groups);
}

// The first code of the earliest group that has the top score; 0 where no score was a number.
std::int32_t Winner(const CodePanels& codes, std::int64_t panels_of_group, const float* z,
                    const float* score, const std::int32_t* groups) {
  constexpr std::int32_t kNone = 0x7fffffff;
  const Index di;
  const V scores = hn::Load(D(), score), top = hn::MaxOfLanes(D(), scores);
  if (!(hn::GetLane(top) > kNever)) {
    return 0;
  }
  const auto first_of = [&](auto is_top, auto candidate) HWY_ATTR {
    return hn::IfThenElse(hn::RebindMask(di, is_top), candidate, hn::Set(di, kNone));
  };
  const std::int64_t number =
      hn::GetLane(hn::MinOfLanes(di, first_of(hn::Eq(scores, top), hn::Load(di, groups))));
  const std::int64_t first = number * panels_of_group, last = first + panels_of_group;
  const Group group{&codes, first, last < codes.count ? last : codes.count};
  auto winner = hn::Set(di, kNone);
  for (std::int64_t p = group.first; p < group.last; ++p) {
    V sum[1][2];
    PanelScores<1>(group, {z, 0, 1}, p, sum);
    for (int j = 0; j < 2; ++j) {
      const std::int64_t code = p * PanelCodes() + j * LaneCount();
      winner = hn::Min(
          winner, first_of(hn::Eq(sum[0][j], top), hn::Iota(di, static_cast<std::int32_t>(code))));
    }
  }
  return hn::GetLane(hn::MinOfLanes(di, winner));
}

// At most kVqRows rows.
void NearestRows(const CodePanels& codes, View<const float, 2> z, std::int64_t begin,
                 std::int64_t rows, std::int32_t* out) {
  constexpr std::int64_t kNear = 6 * 1024;  // floats of a group: it stays in L1 over all rows
  const std::int64_t lanes = LaneCount(), size = PanelCodes() * codes.width;
  // A group is searched a second time for the winner: no more than a sixty-fourth of the codes.
  const std::int64_t fit = kNear / (size + 1), share = codes.count / 64;
  const std::int64_t least = fit < share ? fit : share, panels = least < 1 ? 1 : least;
  HWY_ALIGN float score[kVqRows * hn::MaxLanes(D())];
  HWY_ALIGN std::int32_t groups[kVqRows * hn::MaxLanes(D())];
  for (std::int64_t i = 0; i < rows * lanes; ++i) {
    score[i] = kNever;
    groups[i] = 0;
  }
  std::int32_t number = 0;
  for (std::int64_t first = 0; first < codes.count; first += panels, ++number) {
    const std::int64_t last = first + panels < codes.count ? first + panels : codes.count;
    for (std::int64_t row = 0; row < rows; row += kSearchRows) {
      CallSearch(std::make_integer_sequence<int, kSearchRows>(),
                 rows - row < kSearchRows ? rows - row : kSearchRows, {&codes, first, last},
                 {z.row(begin + row), z.stride[0], 1}, number, score + row * lanes,
                 groups + row * lanes);
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    out[row] = Winner(codes, panels, z.row(begin + row), score + row * lanes, groups + row * lanes);
  }
}
#else
// These levels have no fused multiply-add, and the codes must not depend on the level: one score at
// a time.
void NearestRows(const CodePanels& codes, View<const float, 2> z, std::int64_t begin,
                 std::int64_t rows, std::int32_t* out) {
  const std::int64_t n = PanelCodes();
  for (std::int64_t row = 0; row < rows; ++row) {
    float best = kNever;
    out[row] = 0;
    for (std::int64_t code = 0; code < codes.count * n; ++code) {
      const float* e = codes.values + code / n * n * codes.width + code % n;
      float score = -codes.half_norm[code];
      for (std::int64_t d = 0; d < codes.width; ++d) {
        score = __builtin_fmaf(z(begin + row, d), e[d * n], score);
      }
      if (score > best) {
        best = score;
        out[row] = static_cast<std::int32_t>(code);
      }
    }
  }
}
#endif

// Codes [begin, begin + n) transposed, and half their squared norms: one sum a code, in the order
// of its elements at every level.
void PrepareCodes(View<const float, 2> codes, std::int64_t begin, std::int64_t n,
                  View<float, 2> codes_t, float* half_norm) {
  const std::int64_t width = codes.shape[1];
  Transpose(codes.row(begin), codes.stride[0], n, width, codes_t.stride[0], codes_t.data + begin);
#if HWY_TARGET <= HWY_AVX2
  ForVectors(n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    V sum = hn::Zero(D());
    for (std::int64_t d = 0; d < width; ++d) {
      const V e = LoadN(m, codes_t.row(d) + begin + i);
      sum = hn::MulAdd(e, e, sum);
    }
    StoreN(hn::Mul(hn::Set(D(), 0.5F), sum), m, half_norm + begin + i);
  });
#else
  for (std::int64_t i = begin; i < begin + n; ++i) {
    float sum = 0;
    for (std::int64_t d = 0; d < width; ++d) {
      sum = __builtin_fmaf(codes(i, d), codes(i, d), sum);
    }
    half_norm[i] = 0.5F * sum;
  }
#endif
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(CodesOfPanel);
HWY_EXPORT(PackCodes);
HWY_EXPORT(PrepareCodes);
HWY_EXPORT(NearestRows);

void vq_nearest(View<const float, 2> z, View<const float, 2> codes_t,
                View<const float, 1> half_norm, View<std::int32_t, 1> codes,
                View<std::int32_t, 1> /*scratch*/, Stream) {
  const std::int64_t of_panel = HWY_DYNAMIC_DISPATCH(CodesOfPanel)(), width = z.shape[1];
  const std::int64_t count = chunk_count(half_norm.shape[0], of_panel), rows = z.shape[0];
  float* room = thread_scratch(count * of_panel * (width + 1));
  const CodePanels panels{room + count * of_panel, room, width, count};
  parallel_for(count, [&](std::int64_t p) {
    HWY_DYNAMIC_DISPATCH(PackCodes)(codes_t, half_norm, p, panels);
  });
  parallel_for(chunk_count(rows, kVqRows), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kVqRows, left = rows - begin;
    HWY_DYNAMIC_DISPATCH(NearestRows)
    (panels, z, begin, left < kVqRows ? left : kVqRows, codes.data + begin);
  });
}

void vq_prepare(View<const float, 2> codes, View<float, 2> codes_t, View<float, 1> half_norm,
                Stream) {
  constexpr std::int64_t kCodes = 256;
  const std::int64_t count = codes.shape[0];
  parallel_for(chunk_count(count, kCodes), [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kCodes, left = count - begin;
    HWY_DYNAMIC_DISPATCH(PrepareCodes)
    (codes, begin, left < kCodes ? left : kCodes, codes_t, half_norm.data);
  });
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
