// Cross-entropy of rows of logits h W^T + b and its gradients at precision bf16, without logits in
// memory: four products of t x v x d, two in each of two passes. The rows' pass is attention whose
// queries are rows of h and whose keys and values are both the weight (online softmax as in Dao,
// "FlashAttention-2", 2023): losses, dh, and of each row what its slopes need. The classes' pass
// makes the logits again and from them dw and db (tiles made anew after Wijmans et al., "Cut your
// losses in large-vocabulary language models", 2024).
//
// Here is what the passes share. In either a block owns 128 rows of one matrix in shared memory and
// lets the other pass, 64 rows at a time and two deep. A warp makes 32 x 32 of their logits; slopes
// go through shared memory as bf16 to the next product, of which a warp has 32 rows and every other
// 32 of the depth in registers. Two warps share their rows and meet at a barrier of their own.
#pragma once

#include "kernels/cross_entropy/loss.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kOwn = GradientScratch::kOwn;
constexpr int kPassing = GradientScratch::kPassing;
constexpr int kGradientThreads = 256;
constexpr int kWarpParts = kPassing / 2 / 8;  // accumulators of a fragment of logits
constexpr int kNoTarget = -1;

/// What the slopes of a row need beside its logits: slope = exp(logit - shift) scale, but for the
/// target's.
enum Fact { kShift, kScale, kTargetSlope, kTarget, kFacts };

template <int kUnits>
struct GradientSmem {
  alignas(16) std::uint32_t own[kOwn / 8 * kUnits * kUnitWords];
  alignas(16) std::uint32_t passing[2][kPassing / 8 * kUnits * kUnitWords];
  alignas(16) std::uint32_t slope[kOwn / 8][kPassing / 8][kBlockWords];
  union {
    float facts[2][kFacts][kPassing];  // of passing rows
    struct {
      float top[2][kOwn], sum[2][kOwn], at_target[kOwn];  // of own rows, by half of the tile
    } row;
  };
};

// The place in shared memory of what this lane gives of four blocks: group + l / 8 % 2, block + l /
// 16, or the other way round.
TESSERA_DEVICE const std::uint32_t* groups_first(const std::uint32_t* words, int group, int units,
                                                 int unit, int block) {
  return words + ((group + lane() / 8 % 2) * units + unit) * kUnitWords +
         (block + lane() / 16) * kBlockWords + 4 * (lane() % 8);
}

TESSERA_DEVICE int pair_of_warps() { return warp() / 2; }
TESSERA_DEVICE int half_of_warp() { return warp() % 2; }
TESSERA_DEVICE void sync_pair() { bar_sync(1 + pair_of_warps(), 64); }
TESSERA_DEVICE int own_row(int slot) { return 32 * pair_of_warps() + 8 * slot + lane() / 4; }
// Of the tile, of element e of an accumulator of logits.
TESSERA_DEVICE int passing_row(int part, int e) {
  return kPassing / 2 * half_of_warp() + 8 * part + acc_column(e);
}

/// 32 own rows by 32 passing ones, then by this warp's part of the depth.
using PairLogits = Acc<16, 8>[2][kWarpParts];
template <int kUnits>
using DepthSums = Acc<16, 8>[2][kUnits / 2][4];

/// The packed rows of a block and those that pass.
struct Passage {
  const std::uint32_t *own, *passing;
  int units;

  TESSERA_DEVICE static void copy(std::uint32_t* to, const std::uint32_t* from, int words) {
    for (int i = 4 * linear_thread(); i < words; i += 4 * kGradientThreads) {
      cp_async<16>(to + i, from + i);
    }
  }
  template <int kUnits>
  TESSERA_DEVICE void load_own(GradientSmem<kUnits>& s) const {
    const int words = kOwn / 8 * units * kUnitWords;
    copy(s.own, own + static_cast<std::int64_t>(block_idx().x) * words, words);
  }
  template <int kUnits>
  TESSERA_DEVICE void load_passing(GradientSmem<kUnits>& s, std::int64_t tile) const {
    const int words = kPassing / 8 * units * kUnitWords;
    copy(s.passing[tile % 2], passing + tile * words, words);
  }
};

// z += own passing^T
template <int kUnits>
TESSERA_DEVICE void add_logits(const GradientSmem<kUnits>& s, std::int64_t tile, int units,
                               PairLogits& z) {
  const std::uint32_t* passing =
      s.passing[tile % 2] + kWarpParts * half_of_warp() * units * kUnitWords;
  for (int unit = 0; unit < units; ++unit) {
    Word4 a[2][2];
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[i / 2][i % 2] = four_blocks(
          groups_first(s.own, 4 * pair_of_warps() + 2 * (i / 2), units, unit, 2 * (i % 2)));
    }
    TESSERA_UNROLL
    for (int part = 0; part < kWarpParts; part += 2) {
      const Word4 b[2] = {operand(passing + (part * units + unit) * kUnitWords),
                          operand(passing + ((part + 1) * units + unit) * kUnitWords)};
      TESSERA_UNROLL
      for (int i = 0; i < 8; ++i) {
        multiply(z[i / 2 % 2][part + i % 2], a[i / 2 % 2][i / 4], b[i % 2], i / 4);
      }
    }
  }
}

// out += slope passing; the lane's blocks of the second operand are those of `groups_first`,
// transposed.
template <int kUnits>
TESSERA_DEVICE void add_products(const GradientSmem<kUnits>& s, std::int64_t tile, int units,
                                 DepthSums<kUnits>& out) {
  const std::uint32_t* slope = s.slope[0][0];
  TESSERA_UNROLL
  for (int step = 0; step < kPassing / 16; ++step) {
    Word4 a[2];
    TESSERA_UNROLL
    for (int f = 0; f < 2; ++f) {
      const int group = 4 * pair_of_warps() + 2 * f + lane() / 8 % 2;
      a[f] = four_blocks(slope + (group * (kPassing / 8) + 2 * step + lane() / 16) * kBlockWords +
                         4 * (lane() % 8));
    }
    TESSERA_UNROLL
    for (int v = 0; v < kUnits / 2; ++v) {
      const int unit = 2 * v + half_of_warp();
      if (unit < units) {
        TESSERA_UNROLL
        for (int block = 0; block < 4; block += 2) {
          Word4 b;
          ldmatrix_x4_trans(b.w, groups_first(s.passing[tile % 2], 2 * step, units, unit, block));
          TESSERA_UNROLL
          for (int i = 0; i < 4; ++i) {
            multiply(out[i / 2][v][block + i % 2], a[i / 2], b, i % 2);
          }
        }
      }
    }
  }
}

// Slopes of a fragment of 16 own rows by 8 passing ones, as they enter the next product.
template <int kUnits>
TESSERA_DEVICE void put_slopes(GradientSmem<kUnits>& s, int fragment, int part,
                               const Acc<16, 8>& p) {
  const int group = 4 * pair_of_warps() + 2 * fragment;
  const int block = kWarpParts * half_of_warp() + part;
  s.slope[group][block][lane()] = pack_bf16x2(p.c[0], p.c[1]);
  s.slope[group + 1][block][lane()] = pack_bf16x2(p.c[2], p.c[3]);
}

// The next tile may come: the one before it has been read.
template <class Load>
TESSERA_DEVICE void turn_tile(std::int64_t tile, std::int64_t end, const Load& load) {
  cp_async_wait<0>();
  sync_block();
  if (tile + 1 < end) {
    load(tile + 1);
  }
  cp_async_commit();
}

// f(slot, column, x, y) of the sums of two columns that a lane has in a row.
template <int kUnits, class F>
TESSERA_DEVICE void for_each_pair(const DepthSums<kUnits>& out, const F& f) {
  TESSERA_UNROLL
  for (int i = 0; i < 2 * (kUnits / 2) * 4 * 2; ++i) {
    const int slot = i / (kUnits / 2 * 4);
    const int v = i / 4 % (kUnits / 2);
    const Acc<16, 8>& sum = out[slot / 2][v][i % 4];
    f(slot, 32 * (2 * v + half_of_warp()) + 8 * (i % 4) + acc_column(0), sum.c[2 * (slot % 2)],
      sum.c[2 * (slot % 2) + 1]);
  }
}

TESSERA_DEVICE void store_two(float* row, int column, std::int64_t columns, float x, float y,
                              bool aligned) {
  if (aligned && column + 1 < columns) {
    stg(reinterpret_cast<Float2*>(row + column), Float2{x, y});
    return;
  }
  if (column < columns) {
    stg(row + column, x);
  }
  if (column + 1 < columns) {
    stg(row + column + 1, y);
  }
}

template <int kUnits>
TESSERA_DEVICE void clear(DepthSums<kUnits>& out) {
  TESSERA_UNROLL
  for (int i = 0; i < 2 * (kUnits / 2) * 4; ++i) {
    out[i / 4 % 2][i / 8][i % 4] = {};
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
