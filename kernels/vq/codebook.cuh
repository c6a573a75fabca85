// The codebook as the search for the nearest code reads it: second operands of mma in the order in
// which lanes hold them, and codes in f32 for the exact scores, runs of a candidate's codes
// together.
#pragma once

#include "core/gpu/tile.cuh"
#include "core/gpu/warp.cuh"
#include "kernels/vq/vq_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kRows = 256;  // of a block
constexpr int kThreads = 256;
constexpr int kSlots = 4;  // rows of a lane: 8 slot + lane / 4 of its warp's
constexpr float kHuge = 0x1p90F;
constexpr float kNoCode = 0x1p100F;  // half norm of what must not win

/// How rows of up to kDims dimensions are searched. A part is 8 columns of scores.
template <int steps, bool split>
struct Plan {
  static constexpr int kSteps = steps;  // of 16 slots
  static constexpr bool kSplit = split;
  static constexpr int kDims = split ? 4 * steps : 16 * steps;
  // Short sums leave the time to the maxima, long groups save them; of long codes few are to be
  // read again.
  static constexpr int kGroup = kDims <= 16 ? 16 : kDims == 32 ? 4 : 2;  // parts
  static constexpr int kCandidate = 2 * kGroup;                          // codes
  static constexpr int kRun = kGroup < 8 ? kCandidate : 16;  // codes of a candidate in a row
  static constexpr int kStage = steps < 4 ? 16 : 8;          // parts
  static constexpr int kPartWords = 64 * steps;
  static constexpr int kStride = kDims <= 8 ? 8 : kDims + 8;  // half a warp reads pairs of 4 rows
};

/// Code `i` of the candidate of lane `quad_lane` in group `group`.
template <class P>
TESSERA_DEVICE int code_of_candidate(int group, int quad_lane, int i) {
  constexpr int kRuns = P::kCandidate / P::kRun;
  return (group * kRuns + i / P::kRun) * 4 * P::kRun + quad_lane * P::kRun + i % P::kRun;
}
/// Where dimension 4 d4 of a code stands: runs of codes, four dimensions of each at a time.
template <class P>
TESSERA_DEVICE std::int64_t exact_place(std::int64_t code, int d4, int quads) {
  return ((code / P::kRun * quads + d4) * P::kRun + code % P::kRun) * 4;
}

struct PackSmem {
  float largest[kThreads / 32];
};

/// What x is as a sum of bf16, one after the other.
struct Bf16Terms {
  float rest;
  TESSERA_DEVICE float next() {
    const float term = std::bit_cast<float>(pack_bf16x2(0.0F, rest) & 0xffff0000U);
    rest -= term;
    return term;
  }
};
TESSERA_DEVICE float high_of(float x) { return Bf16Terms{x}.next(); }
TESSERA_DEVICE float low_of(float x) {
  Bf16Terms terms{x};
  terms.next();
  return terms.next();
}

/// Slot `slot` of a code: x high, x low, x high meet e high, e high, e low.
template <class P>
TESSERA_DEVICE float code_slot(View<const float, 2> codes_t, std::int64_t k, bool usable,
                               float half_norm, int slot) {
  const int d = P::kSplit ? slot % P::kDims : slot;
  const int segment = P::kSplit ? slot / P::kDims : 0;
  if (segment == 3) {
    Bf16Terms terms{-half_norm};
    float term = terms.next();
    for (int i = 0; i < d; ++i) {
      term = terms.next();
    }
    return d < 3 ? term : 0.0F;
  }
  if (segment > 3 || d >= codes_t.shape[0] || !usable) {
    return 0.0F;
  }
  const float e = ldg(&codes_t(d, k));
  return !P::kSplit ? e : segment == 2 ? low_of(e) : high_of(e);
}

/// Places in the scratch, see VqScratch.
struct CodebookOut {
  std::uint32_t* coarse;
  float *start, *exact, *largest;
  std::int32_t* counters;
};

// A code's part of the second operands, in the order in which lanes hold them: lane l of a part has
// row l / 4, slots 2 (l % 4) and + 1 of each 8.
template <class P>
TESSERA_DEVICE void pack_coarse(const CodebookOut& out, View<const float, 2> codes_t, int k,
                                bool usable, float half_norm) {
  constexpr int kParts = P::kRun / 2;
  const int place = k % (4 * P::kRun);
  const int part = k / (4 * P::kRun) * kParts + place % P::kRun / 2;
  const int column = place / P::kRun * 2 + place % 2;
  for (int pair = 0; pair < 8 * P::kSteps; ++pair) {
    const float x = code_slot<P>(codes_t, k, usable, half_norm, 2 * pair);
    const float y = code_slot<P>(codes_t, k, usable, half_norm, 2 * pair + 1);
    const int block = part * 2 * P::kSteps + pair / 4;  // 8 slots; a lane reads two steps of it
    const int word = (block / 4 * 32 + column * 4 + pair % 4) * 4 + block % 4;
    stg(out.coarse + word, pack_bf16x2(x, y));
  }
  stg(out.start + part * 8 + column, -half_norm);
}

// A thread per code, those that fill the last tile included.
template <class P>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 2)
    pack_kernel(View<const float, 2> codes_t, View<const float, 1> half_norms, int padded,
                CodebookOut out) {
  TESSERA_SMEM(PackSmem, s);
  const int k = static_cast<int>(global_thread());
  const float h = k < half_norms.shape[0] ? ldg(half_norms.data + k) : kNoCode;
  const bool usable = k < half_norms.shape[0] && h < 3.0e38F;  // false for NaN
  if (k < padded) {
    pack_coarse<P>(out, codes_t, k, usable, usable ? h : kNoCode);
    const int dims = static_cast<int>(codes_t.shape[0]);
    const int quads = (dims + 3) / 4;
    for (int d = 0; d < 4 * quads; ++d) {
      const bool there = d < dims && k < half_norms.shape[0];
      stg(out.exact + exact_place<P>(k, d / 4, quads) + d % 4, there ? ldg(&codes_t(d, k)) : 0.0F);
    }
  }
  const float largest = max_over_warp(usable ? h : 0.0F);
  if (lane() == 0) {
    s.largest[warp()] = largest;
  }
  sync_block();
  if (linear_thread() == 0) {
    float all = 0;
    for (const float each : s.largest) {
      all = max(all, each);
    }
    stg(out.largest + block_idx().x, all);
  }
  if (block_idx().x == 0 && linear_thread() < VqScratch::kCounters) {
    stg(out.counters + linear_thread(), 0);
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
