// Which codes of a row can win, by tensor cores. Scores are taken from bf16 with a bound on their
// error: up to 8 dimensions as high high + low high + high low of split operands and the half norm
// in three more slots of the sum; beyond that rounded, the half norm being where the accumulator
// starts. A lane sees every fourth pair of columns of its rows' scores; of each group of its
// columns (a candidate) it keeps the maximum alone, with the group's number in its last bits, and
// of these the three largest: one max a score and 6 instructions a group. Candidates within the
// bound of the best, at most eight in the four lanes of a row, are scored again exactly; a row for
// which a lane's third is as near goes to a list that scan_kernel takes up.
// A block owns 256 rows, a warp 32 of them as two fragments in registers; stages of the codebook
// pass through shared memory three deep. Traffic: 4 N D + 4 N once, 2 K slots a block of rows, 4 D
// for each code of a candidate.
#pragma once

#include "core/gpu/tile.cuh"
#include "kernels/vq/exact.cuh"

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

/// The code of column `n` of part `part`: lanes see runs of neighbouring codes.
template <class P>
TESSERA_DEVICE int code_of_column(int part, int n) {
  constexpr int kParts = P::kRun / 2;  // that hold four runs
  return part / kParts * 4 * P::kRun + n / 2 * P::kRun + 2 * (part % kParts) + n % 2;
}
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

// ---- the codebook ----

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

// ---- the search ----

/// What the search reads of the scratch, and the lists that it writes.
struct Search {
  const std::uint32_t* coarse;
  const float *start, *exact, *largest;
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
/// Two neighbours read at once.
TESSERA_DEVICE Float2 pair_at(const float* x) {
  const auto both = *reinterpret_cast<const std::uint64_t*>(x);
  return {std::bit_cast<float>(static_cast<std::uint32_t>(both)),
          std::bit_cast<float>(static_cast<std::uint32_t>(both >> 32))};
}

template <class P>
struct SearchSmem {
  static constexpr int kStages = 3;
  alignas(16) float x[kRows][P::kStride];
  alignas(16) std::uint32_t codes[kStages][P::kStage * P::kPartWords];
  alignas(16) float start[kStages][P::kSplit ? 4 : P::kStage * 8];
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
  const int buffer = stage % SearchSmem<P>::kStages;
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
  Frag<16, 16> a[2][P::kSteps];
  float best[kSlots][3];
  float norm[kSlots];  // squared
};

// Slots `slot` and + 1 of the row, see code_slot; the half norm's three terms meet ones.
template <class P>
TESSERA_DEVICE std::uint32_t row_slots(const float* x, int slot) {
  const int segment = P::kSplit ? slot / P::kDims : 0;
  const int d = P::kSplit ? slot % P::kDims : slot;
  if (segment >= 3) {
    return segment > 3 || d > 2 ? 0U : pack_bf16x2(1.0F, d == 0 ? 1.0F : 0.0F);
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
    for (int block = 0; block < 2 * P::kSteps; ++block) {  // of 8 slots
      const int at = 8 * block + 2 * (lane() % 4);
      rows.a[slot / 2][block / 2].r[slot % 2 + 2 * (block % 2)] = row_slots<P>(x, at);
    }
    float norm = 0;
    for (int d = 2 * (lane() % 4); d < P::kDims; d += 8) {
      const Float2 pair = pair_at(x + d);
      norm = fma(pair.x, pair.x, fma(pair.y, pair.y, norm));
    }
    norm += shfl_xor(norm, 1);
    rows.norm[slot] = norm + shfl_xor(norm, 2);
    for (float& each : rows.best[slot]) {
      each = -2 * kNoCode;
    }
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
      start = *reinterpret_cast<const Float2*>(&s.start[buffer][(part + p) * 8 + acc_column(0)]);
    }
    TESSERA_UNROLL
    for (int f = 0; f < kFrags; ++f) {
      Acc<16, 8> sum{{start.x, start.y, start.x, start.y}};
      TESSERA_UNROLL
      for (int i = 0; i < P::kSteps; ++i) {
        mma(sum, rows.a[f][i], b[p][i]);
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
        score_parts<P, kFrags>(s, stage % SearchSmem<P>::kStages, p + i, rows, top);
      }
    }
    TESSERA_UNROLL
    for (int slot = 0; slot < 2 * kFrags; ++slot) {
      keep(rows.best[slot], top[slot], static_cast<std::uint32_t>((first + part) / P::kGroup),
           mask);
    }
  }
}

/// How far a coarse score can lie from the canonical one: what bf16 drops of x . e, what summation
/// (of kDims, in each) and the group's bits drop of all of it, and products that underflow.
/// Infinite or NaN where nothing can be said.
template <class P>
TESSERA_DEVICE float error_bound(float norm, float largest_half_norm, std::uint32_t mask) {
  constexpr float kCoarse = P::kSplit ? 0x1p-14F : 0x1p-7F * (1 + 0x1p-6F);
  const float x = 1.0001F * sqrt(norm) + 0x1p-60F;
  const float e = 1.0001F * sqrt(2 * largest_half_norm) + 0x1p-60F;
  const float sums =
      static_cast<float>(P::kDims) * 0x1p-21F + static_cast<float>(mask + 1) * 0x1p-23F;
  const float bound =
      (kCoarse + sums) * (x * e) + sums * largest_half_norm + 0x1p-110F * (1 + x + e);
  return x * e + largest_half_norm < kHuge && x < kHuge ? bound : 2 * kNoCode;
}

/// The largest half norm of all codes, in every lane.
TESSERA_DEVICE float largest_half_norm(const Search& search) {
  const int blocks = (search.parts * 8 + kThreads - 1) / kThreads;
  float largest = 0;
  for (int i = lane(); i < blocks; i += 32) {
    largest = max(largest, ldg(search.largest + i));
  }
  return max_over_warp(largest);
}

template <int kLanes>
TESSERA_DEVICE Winner best_of_lanes(Winner mine) {
  TESSERA_UNROLL
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const std::int32_t key = shfl_xor(mine.key, step);
    mine.take(key, shfl_xor(mine.code, step));
  }
  return mine;
}

/// What is left to do for the eight rows of a slot, bit l for lane l: whether its best and its
/// second group can hold the winner.
struct Contest {
  std::uint32_t first, second;

  /// The same of one row: bits 0 to 3 the first groups of its lanes, bits 4 to 7 the second.
  TESSERA_DEVICE std::uint32_t of_row(int row) const {
    return (first >> 4 * row & 15U) | (second >> 4 * row & 15U) << 4;
  }
};

// Position of the lowest of eight bits.
TESSERA_DEVICE int lowest(std::uint32_t bits) {
  const std::uint32_t bit = bits & (0U - bits);
  return ((bit & 0xaaU) != 0 ? 1 : 0) + ((bit & 0xccU) != 0 ? 2 : 0) + ((bit & 0xf0U) != 0 ? 4 : 0);
}

// The key of the row in `x` and a code.
template <class P>
TESSERA_DEVICE std::int32_t exact_key(const float* x, const float* exact, int code, int dims,
                                      float half_norm) {
  const int quads = (dims + 3) / 4;
  float score = start_of(half_norm);
  TESSERA_KEEP_ROLLED
  for (int d4 = 0; d4 < quads; ++d4) {
    const auto v = *reinterpret_cast<const Floats*>(x + 4 * d4);
    const auto e = ldg(reinterpret_cast<const Floats*>(exact + exact_place<P>(code, d4, quads)));
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      score = fma(v.v[i], e.v[i], score);
    }
  }
  return key_of(score);
}

// Scores the candidates of a slot's rows exactly, a lane per code: 32 / kCandidate rows at a time.
template <class P>
TESSERA_DEVICE void decide(SearchSmem<P>& s, const Search& search, const Contest& contest,
                           const float (&best)[3], int slot, std::uint32_t mask, int dims,
                           View<const float, 1> half_norms) {
  constexpr int kLanes = P::kCandidate;
  const std::uint32_t first = std::bit_cast<std::uint32_t>(best[0]) & mask;
  const std::uint32_t second = std::bit_cast<std::uint32_t>(best[1]) & mask;
  TESSERA_KEEP_ROLLED
  for (int pass = 0; pass < kLanes / 4; ++pass) {
    const int row = pass * (32 / kLanes) + lane() / kLanes;  // of eight
    const int of_block = 32 * warp() + 8 * slot + row;
    std::uint32_t left = contest.of_row(row);
    Winner winner = s.winner[of_block];
    while (any(left != 0)) {
      const int pick = lowest(left);
      const std::uint32_t firsts = shfl_idx(first, 4 * row + pick % 4);
      const std::uint32_t seconds = shfl_idx(second, 4 * row + pick % 4);
      const int group = static_cast<int>(pick < 4 ? firsts : seconds);
      const int code = code_of_candidate<P>(group, pick % 4, lane() % kLanes);
      if (left != 0 && code < half_norms.shape[0]) {
        winner.take(
            exact_key<P>(s.x[of_block], search.exact, code, dims, ldg(half_norms.data + code)),
            code);
      }
      left &= left - 1;
    }
    winner = best_of_lanes<kLanes>(winner);
    sync_warp();  // all have read the winner so far
    if (lane() % kLanes == 0) {
      s.winner[of_block] = winner;
    }
  }
  sync_warp();
}

/// One slot of LaneRows: copied out, so that the code for four slots stands once.
struct LaneRow {
  float best[3], norm;
};
template <class P>
TESSERA_DEVICE LaneRow row_of_slot(const LaneRows<P>& rows, int slot) {
  LaneRow row{};
  TESSERA_UNROLL
  for (int i = 0; i < kSlots; ++i) {
    row.norm = i == slot ? rows.norm[i] : row.norm;
    TESSERA_UNROLL
    for (int rank = 0; rank < 3; ++rank) {
      row.best[rank] = i == slot ? rows.best[i][rank] : row.best[rank];
    }
  }
  return row;
}

// Scores the best candidate of each row of a slot exactly. The others, and the list, then need no
// more than to be within one bound of that score. Returns whether this lane is the first of a row
// with more than one candidate.
template <class P>
TESSERA_DEVICE bool finish_slot(SearchSmem<P>& s, const Search& search, const LaneRow& mine,
                                int slot, std::int64_t first_row, float largest, std::uint32_t mask,
                                View<const float, 2> x, View<const float, 1> half_norms) {
  const float(&best)[3] = mine.best;
  const int dims = static_cast<int>(x.shape[1]);
  const int of_block = 32 * warp() + 8 * slot + lane() / 4;
  const bool there = first_row + of_block < x.shape[0];
  if (lane() % 4 == 0) {
    s.winner[of_block] = {};
  }
  sync_warp();
  const float bound = error_bound<P>(mine.norm, largest, mask);
  float top = max(best[0], shfl_xor(best[0], 1));
  top = max(top, shfl_xor(top, 2));
  const bool known = there && bound < kHuge && top > -0.5F * kNoCode;
  const bool leads = known && best[0] == top;
  decide<P>(s, search, {ballot(leads), 0}, best, slot, mask, dims, half_norms);
  const std::int32_t key = s.winner[of_block].key;
  sync_warp();  // before the next winner
  const float edge = max(score_of(key), top - bound) - 1.01F * bound;
  const bool listed = (ballot(there && (!known || best[2] >= edge)) >> (lane() & 28) & 15U) != 0;
  if (listed && lane() % 4 == 0) {
    stg(search.list + atomic_add(search.counters + VqScratch::kScanned, 1U),
        static_cast<std::int32_t>(first_row + of_block));
  }
  const bool open = known && !listed;
  const std::uint32_t first = ballot(open && !leads && best[0] >= edge);
  const Contest contest{first, ballot(open && best[1] >= edge)};
  decide<P>(s, search, contest, best, slot, mask, dims, half_norms);
  return open && lane() % 4 == 0 && contest.of_row(lane() / 4) != 0;
}

// The last bits of a score that hold the number of its group.
template <class P>
TESSERA_DEVICE std::uint32_t group_mask(int parts) {
  std::uint32_t mask = 0;
  while (static_cast<int>(mask) < (parts - 1) / P::kGroup) {
    mask = 2 * mask + 1;
  }
  return mask;
}

template <class P>
TESSERA_GLOBAL void __launch_bounds__(kThreads, 2)
    nearest_kernel(View<const float, 2> x, View<const float, 1> half_norms, Search search,
                   View<std::int32_t, 1> codes) {
  TESSERA_SMEM(SearchSmem<P>, s);
  const std::int64_t first_row = static_cast<std::int64_t>(block_idx().x) * kRows;
  const int stages = search.stages(P::kStage);
  load_block_rows(s, x, first_row);
  cp_async_commit();
  load_stage(s, search, 0);
  cp_async_commit();
  if (stages > 1) {
    load_stage(s, search, 1);
  }
  cp_async_commit();
  const std::int64_t left = x.shape[0] - first_row - 32 * warp();
  const int fragments = left > 16 ? 2 : left > 0 ? 1 : 0;
  const std::uint32_t mask = group_mask<P>(search.parts);
  cp_async_wait<2>();
  sync_block();
  LaneRows<P> rows;
  take_rows(s, rows);
  for (int stage = 0; stage < stages; ++stage) {
    cp_async_wait<1>();
    sync_block();  // the stage is here, and the one before has been read
    if (stage + 2 < stages) {
      load_stage(s, search, stage + 2);
    }
    cp_async_commit();
    if (fragments == 2) {
      score_stage<P, 2>(s, stage, search.parts, mask, rows);
    } else if (fragments == 1) {
      score_stage<P, 1>(s, stage, search.parts, mask, rows);
    }
  }
  const float largest = largest_half_norm(search);
  std::int32_t contested = 0;
  TESSERA_KEEP_ROLLED
  for (int slot = 0; slot < 2 * fragments; ++slot) {
    contested += finish_slot(s, search, row_of_slot(rows, slot), slot, first_row, largest, mask, x,
                             half_norms)
                     ? 1
                     : 0;
  }
  contested = reduce_add(contested);
  if (lane() == 0) {
    s.contested[warp()] = contested;
  }
  sync_block();
  if (first_row + linear_thread() < x.shape[0]) {
    stg(codes.data + first_row + linear_thread(), s.winner[linear_thread()].code);
  }
  if (linear_thread() == 0) {
    std::uint32_t all = 0;
    for (const std::int32_t each : s.contested) {
      all += static_cast<std::uint32_t>(each);
    }
    if (all > 0) {
      atomic_add(search.counters + VqScratch::kContested, all);
    }
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
