// The search is a product on the tile of kernels/matmul: rows times panels of codes, the sums
// starting at -|e|^2 / 2. No score is stored. Of each row and lane the largest score so far and its
// panel are kept; which code of the panel it was is found at the end by computing that panel again.
// That is one comparison a panel and lane, not one a code: short codes are bound by it (vq_bench).
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

/// Best score of each lane, and its panel, for the rows of a tile.
struct TakeBest {
  static constexpr bool kUnrolled = true;
  const float* half_norm;  // of the panel
  float* score;            // (rows, lanes)
  std::int32_t* panels;    // the same
  std::int32_t panel;

  HWY_INLINE bool Continues() const { return false; }
  template <int kVectors>
  HWY_INLINE void First(V (&v)[kVectors]) const {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      v[j] = hn::Neg(hn::Load(D(), half_norm + j * LaneCount()));
    }
  }
  template <int kVectors>
  HWY_INLINE void Load(int, V (&)[kVectors]) const {}
  HWY_INLINE void Store(int row, const V (&v)[2]) const {
    const std::int64_t at = row * LaneCount();
    const V larger = hn::Max(v[0], v[1]), best = hn::Load(D(), score + at);
    const auto better = hn::Gt(larger, best);  // false for NaN
    hn::Store(hn::IfThenElse(better, larger, best), D(), score + at);
    const auto old = hn::Load(Index(), panels + at);
    hn::Store(hn::IfThenElse(hn::RebindMask(Index(), better), hn::Set(Index(), panel), old),
              Index(), panels + at);
  }
};

/// The scores of one row.
struct StoreScores {
  static constexpr bool kUnrolled = true;
  const float* half_norm;
  float* scores;

  HWY_INLINE bool Continues() const { return false; }
  HWY_INLINE void First(V (&v)[2]) const {
    v[0] = hn::Neg(hn::Load(D(), half_norm));
    v[1] = hn::Neg(hn::Load(D(), half_norm + LaneCount()));
  }
  HWY_INLINE void Load(int, V (&)[2]) const {}
  HWY_INLINE void Store(int, const V (&v)[2]) const {
    hn::Store(v[0], D(), scores);
    hn::Store(v[1], D(), scores + LaneCount());
  }
};

// The first code of the earliest panel that has the top score; 0 where no score was a number.
std::int32_t Winner(const CodePanels& codes, const float* z, const float* score,
                    const std::int32_t* panels) {
  float top = score[0];
  std::int32_t panel = panels[0];
  for (std::int64_t i = 1; i < LaneCount(); ++i) {
    if (score[i] > top || (score[i] == top && panels[i] < panel)) {
      top = score[i];
      panel = panels[i];
    }
  }
  const std::int64_t n = CodesOfPanel();
  HWY_ALIGN float scores[2 * hn::MaxLanes(D())];
  Tile<1, 2, Layout::rows>({z, 0, 1}, codes.values + panel * n * codes.width, n, codes.width,
                           StoreScores{codes.half_norm + panel * n, scores});
  for (std::int64_t j = 0; j < n; ++j) {
    if (scores[j] == top && top > kNever) {
      return panel * static_cast<std::int32_t>(n) + static_cast<std::int32_t>(j);
    }
  }
  return 0;
}

// At most kVqRows rows.
void NearestRows(const CodePanels& codes, View<const float, 2> z, std::int64_t begin,
                 std::int64_t rows, std::int32_t* out) {
  constexpr std::int64_t kNear = 32 * 1024;  // floats of panels that stay near over all rows
  const std::int64_t lanes = LaneCount(), n = CodesOfPanel(), size = n * codes.width;
  const std::int64_t group = size < kNear ? kNear / (size + 1) + 1 : 1;
  HWY_ALIGN float score[kVqRows * hn::MaxLanes(D())];
  HWY_ALIGN std::int32_t panels[kVqRows * hn::MaxLanes(D())];
  for (std::int64_t i = 0; i < rows * lanes; ++i) {
    score[i] = kNever;
    panels[i] = 0;
  }
  for (std::int64_t first = 0; first < codes.count; first += group) {
    const std::int64_t last = first + group < codes.count ? first + group : codes.count;
    for (std::int64_t row = 0; row < rows;) {
      const std::int64_t count = TileRows(rows - row);
      for (std::int64_t p = first; p < last; ++p) {
        TileIn<2, Layout::rows>(count, {z.row(begin + row), z.stride[0], 1},
                                codes.values + p * size, n, codes.width,
                                TakeBest{codes.half_norm + p * n, score + row * lanes,
                                         panels + row * lanes, static_cast<std::int32_t>(p)});
      }
      row += count;
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    out[row] = Winner(codes, z.row(begin + row), score + row * lanes, panels + row * lanes);
  }
}
#else
// These levels have no fused multiply-add, and the codes must not depend on the level: one score at
// a time.
void NearestRows(const CodePanels& codes, View<const float, 2> z, std::int64_t begin,
                 std::int64_t rows, std::int32_t* out) {
  const std::int64_t n = CodesOfPanel();
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

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
HWY_EXPORT(CodesOfPanel);
HWY_EXPORT(PackCodes);
HWY_EXPORT(NearestRows);

void vq_nearest(View<const float, 2> z, View<const float, 2> codes_t,
                View<const float, 1> half_norm, View<std::int32_t, 1> codes, Stream) {
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
