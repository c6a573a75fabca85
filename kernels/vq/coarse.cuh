// Which codes of a row can win, by tensor cores, with a bound on the error of these scores: up to 4
// dimensions from bf16 as high high + low high + high low of split operands and the half norm in
// three more slots of the sum; up to 8 from tf32, which costs no more than two bf16 for each
// number; beyond that from bf16. There the half norm is where the accumulator starts. A lane sees
// every fourth pair of columns of its rows' scores; of each group of its columns (a candidate) it
// keeps the maximum alone, with the group's number in its last bits, and of these the three
// largest: one max a score and 6 instructions a group. nearest.cuh decides between the candidates.
// A block owns 256 rows, a warp 32 of them as two fragments in registers; stages of the codebook
// pass through shared memory three deep, or stay there. Traffic: 4 N D + 4 N once, an operand of
// each code a block of rows, and what nearest.cuh reads of the candidates.
#pragma once

#include "core/gpu/tile.cuh"
#include "kernels/vq/codebook.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

/// What the search reads of the scratch, and the lists that it writes.
struct Search {
  const std::uint32_t* coarse;
  const float *start, *exact, *largest, *rest;
  std::uint32_t* counters;
  std::int32_t* list;
  int parts;  // of all codes

  TESSERA_DEVICE int stages(int of) const { return (parts + of - 1) / of; }
};

struct alignas(16) Word4 {
  std::uint32_t w[4];
};
/// Four floats read at once; an array, since g++ takes a struct of members apart into four reads.
struct alignas(16) Floats {
  float v[4];
};
TESSERA_DEVICE Float2 pair_of(std::uint64_t both) {
  return {std::bit_cast<float>(static_cast<std::uint32_t>(both)),
          std::bit_cast<float>(static_cast<std::uint32_t>(both >> 32))};
}
/// Two neighbours read at once.
TESSERA_DEVICE Float2 pair_at(const float* x) {
  return pair_of(*reinterpret_cast<const std::uint64_t*>(x));
}
TESSERA_DEVICE Float2 ldg_pair(const float* x) {
  return pair_of(ldg(reinterpret_cast<const std::uint64_t*>(x)));
}

/// Four words read at once: g++ takes the copy of a struct apart.
TESSERA_DEVICE Word4 words_at(const std::uint32_t* p) {
  return std::bit_cast<Word4>(*reinterpret_cast<const unsigned __int128*>(p));
}

template <class P>
struct SearchSmem {
  alignas(16) float x[kRows][P::kStride];
  alignas(16) std::uint32_t codes[P::kBuffers][P::kStage * P::kPartWords];
  alignas(16) float start[P::kBuffers][P::kSplit ? 4 : P::kStage * 8];
  Winner winner[kRows];
  std::int32_t contested[kThreads / 32];
};

// The block's rows, zeros beyond them and beyond their dimensions.
template <class P>
TESSERA_DEVICE void load_block_rows(SearchSmem<P>& s, View<const float, 2> x,
                                    std::int64_t first_row) {
  constexpr int kQuads = P::kDims / 4;
  const int dims = static_cast<int>(x.shape[1]);
  const std::int64_t left = x.shape[0] - first_row;
  const bool whole = dims % 4 == 0 && x.stride[0] % 4 == 0 &&
                     reinterpret_cast<std::uintptr_t>(x.data) % sizeof(Float4) == 0;
  for (int i = linear_thread(); whole && i < kRows * kQuads; i += kThreads) {
    const int r = i / kQuads;
    const int d = 4 * (i % kQuads);
    const bool there = r < left && d < dims;
    cp_async<16>(&s.x[r][d], there ? x.row(first_row + r) + d : x.data, there ? 16 : 0);
  }
  for (int i = linear_thread(); !whole && i < kRows * dims; i += kThreads) {
    const int r = i / dims;
    s.x[r][i % dims] = r < left ? ldg(x.row(first_row + r) + i % dims) : 0.0F;
  }
  const int absent = whole ? 0 : P::kDims - dims;
  for (int i = linear_thread(); i < kRows * absent; i += kThreads) {
    s.x[i / absent][dims + i % absent] = 0.0F;
  }
}

// Parts [stage kStage, ...) of the codebook on their way to the stage's buffer.
template <class P>
TESSERA_DEVICE void load_stage(SearchSmem<P>& s, const Search& search, int stage) {
  const int buffer = stage % P::kBuffers;
  const int first = stage * P::kStage;
  const int parts = search.parts - first < P::kStage ? search.parts - first : P::kStage;
  for (int i = 4 * linear_thread(); i < parts * P::kPartWords; i += 4 * kThreads) {
    cp_async<16>(&s.codes[buffer][i], search.coarse + first * P::kPartWords + i);
  }
  for (int i = 4 * linear_thread(); !P::kSplit && i < parts * 8; i += 4 * kThreads) {
    cp_async<16>(&s.start[buffer][i], search.start + first * 8 + i);
  }
}

/// What a lane holds of its warp's 32 rows: operands, and the best groups of each of its four rows.
template <class P>
struct LaneRows {
  Frag<16, 16> a[2][P::kSteps];  // of 8 columns in tf32
  float best[kSlots][3];
};

/// Two f32 as bf16, and what bf16 leaves of them.
struct SplitPair {
  std::uint32_t high, low;
};
TESSERA_DEVICE SplitPair split_pair(float x, float y) {
  const std::uint32_t high = pack_bf16x2(x, y);
  return {high, pack_bf16x2(x - std::bit_cast<float>(high << 16U),
                            y - std::bit_cast<float>(high & 0xffff0000U))};
}

// Word `block` of four of the row's, see code_word; the half norm's three terms meet ones.
template <class P>
TESSERA_DEVICE std::uint32_t row_word(const float* x, int block) {
  const int slot = 8 * block + 2 * (lane() % 4);
  const int segment = P::kSplit ? slot / P::kDims : 0;
  const int d = P::kSplit ? slot % P::kDims : slot;
  if (segment >= 3) {
    return segment > 3 || d > 2 ? 0U : pack_bf16x2(1.0F, d == 0 ? 1.0F : 0.0F);
  }
  if (P::kTf32) {
    const Float2 pair = pair_at(x + block / 2 * 8 + 2 * (lane() % 4));
    return tf32_of(block % 2 == 0 ? pair.x : pair.y);
  }
  const Float2 pair = pair_at(x + d);
  const SplitPair split = split_pair(pair.x, pair.y);
  return segment == 1 ? split.low : split.high;
}

template <class P>
TESSERA_DEVICE void take_rows(const SearchSmem<P>& s, LaneRows<P>& rows) {
  TESSERA_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    const float* x = s.x[32 * warp() + 8 * slot + lane() / 4];
    TESSERA_UNROLL
    for (int block = 0; block < 2 * P::kSteps; ++block) {
      rows.a[slot / 2][block / 2].r[slot % 2 + 2 * (block % 2)] = row_word<P>(x, block);
    }
    for (float& each : rows.best[slot]) {
      each = -2 * kNoCode;
    }
  }
}

template <class P>
TESSERA_DEVICE void multiply(Acc<16, 8>& sum, const Frag<16, 16>& a, const Frag<8, 16>& b) {
  if (P::kTf32) {
    mma_m16n8k8_tf32(sum, a.r, b.r);
  } else {
    mma(sum, a, b);
  }
}

// Two parts' scores of kFrags fragments, k ascending, enter the maxima of the lane's rows.
template <class P, int kFrags>
TESSERA_DEVICE void score_parts(const SearchSmem<P>& s, int buffer, int part,
                                const LaneRows<P>& rows, float (&top)[kSlots]) {
  Frag<8, 16> b[2][P::kSteps];
  TESSERA_UNROLL
  for (int i = 0; i < P::kSteps; ++i) {
    const Word4 four = *reinterpret_cast<const Word4*>(
        &s.codes[buffer][part * P::kPartWords + (i * 32 + lane()) * 4]);
    TESSERA_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int block = 4 * i + e;
      b[block / (2 * P::kSteps)][block / 2 % P::kSteps].r[block % 2] = four.w[e];
    }
  }
  TESSERA_UNROLL
  for (int p = 0; p < 2; ++p) {
    Float2 start{0.0F, 0.0F};
    if (!P::kSplit) {
      start = *reinterpret_cast<const Float2*>(
          &s.start[buffer][start_place<P>(part + p, acc_column(0))]);
    }
    TESSERA_UNROLL
    for (int f = 0; f < kFrags; ++f) {
      Acc<16, 8> sum{{start.x, start.y, start.x, start.y}};
      TESSERA_UNROLL
      for (int i = 0; i < P::kSteps; ++i) {
        multiply<P>(sum, rows.a[f][i], b[p][i]);
      }
      top[2 * f] = max(top[2 * f], max(sum.c[0], sum.c[1]));
      top[2 * f + 1] = max(top[2 * f + 1], max(sum.c[2], sum.c[3]));
    }
  }
}

// v with the group's number in its last bits, put among the three largest.
TESSERA_DEVICE void keep(float (&best)[3], float v, std::uint32_t group, std::uint32_t mask) {
  const float m = std::bit_cast<float>((std::bit_cast<std::uint32_t>(v) & ~mask) | group);
  best[2] = max(best[2], min(best[1], m));
  best[1] = max(best[1], min(best[0], m));
  best[0] = max(best[0], m);
}

// The parts of a stage, group by group.
template <class P, int kFrags>
TESSERA_DEVICE void score_stage(const SearchSmem<P>& s, int stage, int parts, std::uint32_t mask,
                                LaneRows<P>& rows) {
  constexpr int kUnrolled = P::kGroup < 4 ? P::kGroup : 4;
  const int first = stage * P::kStage;
  const int end = parts - first < P::kStage ? parts - first : P::kStage;
  for (int part = 0; part < end; part += P::kGroup) {
    float top[kSlots];
    TESSERA_UNROLL
    for (float& each : top) {
      each = -2 * kNoCode;
    }
    for (int p = part; p < part + P::kGroup && p < end; p += kUnrolled) {
      TESSERA_UNROLL
      for (int i = 0; i < kUnrolled; i += 2) {
        score_parts<P, kFrags>(s, stage % P::kBuffers, p + i, rows, top);
      }
    }
    TESSERA_UNROLL
    for (int slot = 0; slot < 2 * kFrags; ++slot) {
      keep(rows.best[slot], top[slot], static_cast<std::uint32_t>((first + part) / P::kGroup),
           mask);
    }
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
