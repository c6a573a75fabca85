// The codebook as the search for the nearest code reads it: second operands of mma in the order in
// which lanes hold them, and codes in f32 for the exact scores, runs of a candidate's codes
// together.
#pragma once

#include <type_traits>

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

/// What the operands of the coarse scores are: three products of two bf16 each, or one product of
/// what tf32 (11 bits) or bf16 (8 bits) leaves of both; dimensions of one mma. kRounding: what is
/// dropped of a number at most, in parts of it.
struct Split {
  static constexpr int kDims = 4;
  static constexpr float kRounding = 0x1p-16F;
};
struct Tf32 {
  static constexpr int kDims = 8;
  static constexpr float kRounding = 0x1p-11F;
};
struct Bf16 {
  static constexpr int kDims = 16;
  static constexpr float kRounding = 0x1p-8F;
};

/// How rows of up to kDims dimensions are searched. A part is 8 columns of scores. Codebooks of at
/// most `buffers` stages stay in shared memory as a whole where that is more than the three that a
/// stream of them needs.
template <int steps, class Operands, int buffers = 3>
struct Plan {
  using Layout = Plan<steps, Operands>;  // of the packed codebook
  using Number = Operands;
  static constexpr int kSteps = steps;  // an mma each
  static constexpr bool kSplit = std::is_same_v<Operands, Split>;
  static constexpr bool kTf32 = std::is_same_v<Operands, Tf32>;
  static constexpr int kDims = Operands::kDims * steps;
  // Short sums leave the time to the maxima, long groups save them; of long codes few are to be
  // read again.
  static constexpr int kGroup = kDims <= 16 ? 16 : kDims == 32 ? 4 : 2;  // parts
  static constexpr int kCandidate = 2 * kGroup;                          // codes
  static constexpr int kRun = kGroup < 8 ? kCandidate : 16;  // codes of a candidate in a row
  static constexpr int kStage = steps < 4 ? 16 : 8;          // parts
  static constexpr int kBuffers = buffers;                   // stages in shared memory
  static constexpr bool kWhole = buffers > 3;
  static constexpr std::int64_t kWholeCodes = std::int64_t{8} * kStage * buffers;
  // Whether a candidate's operands are scored again before its codes in f32 are: they are shorter.
  static constexpr bool kRefines = std::is_same_v<Operands, Bf16>;
  static constexpr int kPartWords = 64 * steps;
  static constexpr int kStarts = kGroup < 4 ? kGroup : 4;  // parts whose starts a lane has in a row
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

/// Where a column's half norm stands: those of a lane's columns in neighbouring parts together.
template <class P>
TESSERA_DEVICE int start_place(int part, int column) {
  return ((part / P::kStarts * 4 + column / 2) * P::kStarts + part % P::kStarts) * 2 + column % 2;
}

struct PackSmem {
  float largest[kThreads / 32], rest[kThreads / 32];
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

/// What the operands of one product drop of x.
template <class P>
TESSERA_DEVICE float dropped(float x) {
  return x - (P::kTf32 ? std::bit_cast<float>(tf32_of(x)) : high_of(x));
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

/// Word `word` of a code: slots 2 word and + 1, of tf32 one dimension; words w and w + 4 of 8 are
/// those of lane w of four, so that it finds both dimensions of a row together.
template <class P>
TESSERA_DEVICE std::uint32_t code_word(View<const float, 2> codes_t, std::int64_t k, bool usable,
                                       float half_norm, int word) {
  if (P::kTf32) {
    const int d = word / 8 * 8 + word % 4 * 2 + word / 4 % 2;
    return tf32_of(code_slot<P>(codes_t, k, usable, half_norm, d));
  }
  return pack_bf16x2(code_slot<P>(codes_t, k, usable, half_norm, 2 * word),
                     code_slot<P>(codes_t, k, usable, half_norm, 2 * word + 1));
}

/// Places in the scratch, see VqScratch.
struct CodebookOut {
  std::uint32_t* coarse;
  float *start, *exact, *largest, *rest;
  std::int32_t* counters;
};

// A code's part of the second operands, in the order in which lanes hold them: lane l of a part has
// row l / 4, word l % 4 of each 4.
template <class P>
TESSERA_DEVICE void pack_coarse(const CodebookOut& out, View<const float, 2> codes_t, int k,
                                bool usable, float half_norm) {
  constexpr int kParts = P::kRun / 2;
  const int place = k % (4 * P::kRun);
  const int part = k / (4 * P::kRun) * kParts + place % P::kRun / 2;
  const int column = place / P::kRun * 2 + place % 2;
  for (int word = 0; word < 8 * P::kSteps; ++word) {
    const int block = part * 2 * P::kSteps + word / 4;  // a lane reads a word of each of four
    stg(out.coarse + (block / 4 * 32 + column * 4 + word % 4) * 4 + block % 4,
        code_word<P>(codes_t, k, usable, half_norm, word));
  }
  stg(out.start + start_place<P>(part, column), -half_norm);
}

// The codes in f32 for the exact scores. Returns the square of what the coarse operands drop of
// this one.
template <class P>
TESSERA_DEVICE float pack_exact(const CodebookOut& out, View<const float, 2> codes_t, int k) {
  const int dims = static_cast<int>(codes_t.shape[0]);
  const int quads = (dims + 3) / 4;
  float rest = 0;
  for (int d = 0; d < 4 * quads; ++d) {
    const float e = d < dims && k < codes_t.shape[1] ? ldg(&codes_t(d, k)) : 0.0F;
    stg(out.exact + exact_place<P>(k, d / 4, quads) + d % 4, e);
    rest = fma(dropped<P>(e), dropped<P>(e), rest);
  }
  return rest;
}

// The largest of the block's values, into out from thread 0.
TESSERA_DEVICE void store_largest(float (&of_warp)[kThreads / 32], float* out) {
  float all = 0;
  for (const float each : of_warp) {
    all = max(all, each);
  }
  stg(out + block_idx().x, all);
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
  float rest = 0;
  if (k < padded) {
    pack_coarse<P>(out, codes_t, k, usable, usable ? h : kNoCode);
    rest = pack_exact<P>(out, codes_t, k);
  }
  const float largest = max_over_warp(usable ? h : 0.0F);
  rest = max_over_warp(usable ? rest : 0.0F);
  if (lane() == 0) {
    s.largest[warp()] = largest;
    s.rest[warp()] = rest;
  }
  sync_block();
  if (linear_thread() == 0) {
    store_largest(s.largest, out.largest);
    store_largest(s.rest, out.rest);
  }
  if (block_idx().x == 0 && linear_thread() < VqScratch::kCounters) {
    stg(out.counters + linear_thread(), 0);
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
