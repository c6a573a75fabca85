// Cross-entropy of rows of logits h W^T + b and its gradients at precision bf16, without logits in
// memory: four products of t x v x d, two in each of two passes. The rows' pass is attention whose
// queries are rows of h and whose keys and values are both the weight (online softmax as in Dao,
// "FlashAttention-2", 2023): losses, dh, and of each row what its slopes need. The classes' pass
// makes the logits again and from them dw and db (tiles made anew after Wijmans et al., "Cut your
// losses in large-vocabulary language models", 2024).
//
// In either a block owns 128 rows of one matrix in shared memory and lets the other pass, 64 rows
// at a time and two deep. A warp makes 32 x 32 of their logits; slopes go through shared memory as
// bf16 to the next product, of which a warp has 32 rows and every other 32 of the depth in
// registers. Two warps share their rows and meet at a barrier of their own.
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

/// What a lane of the rows' pass knows of a row: the classes but its target.
struct OwnRow {
  RunningSum others;
  std::int32_t target = kNoTarget;
};

// Takes the logit of the target out of z, if it is this lane's, and keeps it.
TESSERA_DEVICE void take_target(Acc<16, 8> (&z)[kWarpParts], int e, std::int64_t column,
                                float& kept) {
  constexpr std::int64_t kColumns = kPassing / 2;
  if (column >= 0 && column < kColumns && column % 8 / 2 == lane() % 4) {
    TESSERA_UNROLL
    for (int i = 0; i < 2 * kWarpParts; ++i) {
      if (column == 8 * (i / 2) + acc_column(i % 2)) {
        kept = z[i / 2].c[e + i % 2];
        z[i / 2].c[e + i % 2] = -__builtin_huge_valf();
      }
    }
  }
}

TESSERA_DEVICE float largest_of(const Acc<16, 8> (&z)[kWarpParts], int e) {
  float top = max(z[0].c[e], z[0].c[e + 1]);
  TESSERA_UNROLL
  for (int part = 1; part < kWarpParts; ++part) {
    top = max(top, max(z[part].c[e], z[part].c[e + 1]));
  }
  top = max(top, shfl_xor(top, 1));
  return max(top, shfl_xor(top, 2));
}

// The maxima of the rows over this tile, where the other warp of the pair sees them.
template <int kUnits>
TESSERA_DEVICE void leave_tops(GradientSmem<kUnits>& s, PairLogits& z, std::int64_t first,
                               const OwnRow (&rows)[4]) {
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    const int row = own_row(slot);
    take_target(z[slot / 2], 2 * (slot % 2), rows[slot].target - first, s.row.at_target[row]);
    const float top = largest_of(z[slot / 2], 2 * (slot % 2));
    if (lane() % 4 == 0) {
      s.row.top[half_of_warp()][row] = top;
    }
  }
}

// Logits become powers under the row's maximum; sums of products follow it where it grows.
template <int kUnits>
TESSERA_DEVICE void take_powers(GradientSmem<kUnits>& s, PairLogits& z, OwnRow (&rows)[4],
                                DepthSums<kUnits>& out) {
  float shrink[4];
  bool grew = false;
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    const int row = own_row(slot);
    shrink[slot] = rows[slot].others.raise(max(s.row.top[0][row], s.row.top[1][row]));
    grew = grew || shrink[slot] != 1.0F;
    const float shift = RunningSum::shift_of(rows[slot].others.top);
    TESSERA_UNROLL
    for (int i = 0; i < 2 * kWarpParts; ++i) {
      float& x = z[slot / 2][i / 2].c[2 * (slot % 2) + i % 2];
      x = RunningSum::power(x, shift);
      rows[slot].others.sum += x;
    }
  }
  if (any(grew)) {
    TESSERA_UNROLL
    for (int i = 0; i < 2 * (kUnits / 2) * 4 * 4; ++i) {
      out[i / 4 % 2][i / 32][i / 8 % 4].c[i % 4] *= shrink[2 * (i / 4 % 2) + i % 4 / 2];
    }
  }
  TESSERA_UNROLL
  for (int i = 0; i < 2 * kWarpParts; ++i) {
    put_slopes(s, i / kWarpParts, i % kWarpParts, z[i / kWarpParts][i % kWarpParts]);
  }
}

template <int kUnits>
TESSERA_DEVICE void leave_sums(GradientSmem<kUnits>& s, const OwnRow (&rows)[4]) {
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    float sum = rows[slot].others.sum;
    sum += shfl_xor(sum, 1);
    sum += shfl_xor(sum, 2);
    if (lane() % 4 == 0) {
      s.row.sum[half_of_warp()][own_row(slot)] = sum;
    }
  }
}

/// A row at the end: softmax over its classes, the target apart, so that 1 - p loses nothing where
/// p is near 1.
struct RowEnd {
  float shift, others, sum;
  float shrink;  ///< from powers under the others' maximum

  template <int kUnits>
  TESSERA_DEVICE RowEnd(const GradientSmem<kUnits>& s, int row, float top) {
    const float at_target = s.row.at_target[row];
    RunningSum all{top, s.row.sum[0][row] + s.row.sum[1][row]};
    shrink = all.raise(at_target);
    shift = RunningSum::shift_of(all.top);
    others = all.sum;
    sum = others + RunningSum::power(at_target, shift);
  }
};

/// What goes out of the rows' pass. dh has no rows where nobody needs it.
struct RowOutput {
  View<const float, 1> row_weight;
  float factor;
  View<float, 1> loss;
  View<float, 2> dh;
  float* facts;
  std::int64_t facts_apart;

  TESSERA_DEVICE float weight(std::int64_t row) const {
    return row_weight.shape[0] > 0 ? ldg(row_weight.data + row) : 1.0F;
  }
  TESSERA_DEVICE void store_fact(Fact fact, std::int64_t row, float value) const {
    stg(facts + fact * facts_apart + row, value);
  }
};

// Rows that fill the last tile have slopes of exactly 0.
TESSERA_DEVICE void store_facts(const RowOutput& to, std::int64_t row, std::int32_t target,
                                float shift, float scale, float others) {
  to.store_fact(kShift, row, shift);
  to.store_fact(kScale, row, scale);
  to.store_fact(kTargetSlope, row, -scale * others);
  to.store_fact(kTarget, row, std::bit_cast<float>(target));
}

// dh = scale (sum over the others of power times weight - their sum times the target's weight)
template <int kUnits>
TESSERA_DEVICE void store_hidden_gradient(const GradientSmem<kUnits>& s, const RowOutput& to,
                                          View<const float, 2> weight, std::int64_t first_row,
                                          const OwnRow (&rows)[4], const DepthSums<kUnits>& out) {
  const bool aligned = pairs_are_aligned(to.dh);
  const bool weight_aligned = pairs_are_aligned(weight);
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    const std::int64_t row = first_row + own_row(slot);
    if (row < to.dh.shape[0]) {
      const RowEnd end(s, own_row(slot), rows[slot].others.top);
      const float scale = to.factor * to.weight(row) / end.sum;
      TESSERA_UNROLL
      for (int i = 0; i < kUnits / 2 * 4; ++i) {
        const Acc<16, 8>& sum = out[slot / 2][i / 4][i % 4];
        const int e = 2 * (slot % 2);
        const int column = 32 * (2 * (i / 4) + half_of_warp()) + 8 * (i % 4) + acc_column(0);
        const Float2 w = pair_of(weight, rows[slot].target, column, weight_aligned);
        const std::uint32_t rounded = pack_bf16x2(w.x, w.y);
        const auto slope = [&](float product, std::uint32_t bits) {
          return scale * (end.shrink * product - end.others * std::bit_cast<float>(bits));
        };
        store_two(to.dh.row(row), column, to.dh.shape[1], slope(sum.c[e], rounded << 16U),
                  slope(sum.c[e + 1], rounded & 0xffff0000U), aligned);
      }
    }
  }
}

// A thread per row.
template <int kUnits>
TESSERA_DEVICE void store_row(const GradientSmem<kUnits>& s, const RowOutput& to,
                              std::int64_t first_row, int own, std::int32_t target, float top) {
  const std::int64_t row = first_row + own;
  if (row >= to.loss.shape[0]) {
    store_facts(to, row, kNoTarget, __builtin_huge_valf(), 0.0F, 0.0F);
    return;
  }
  const RowEnd end(s, own, top);
  const float weight = to.weight(row);
  store_facts(to, row, target, end.shift, to.factor * weight / end.sum, end.others);
  stg(to.loss.data + row, weight * (log(end.sum) + end.shift - s.row.at_target[own]));
}

TESSERA_DEVICE void start_from_class_bias(PairLogits& z, const float* bias) {
  TESSERA_UNROLL
  for (int part = 0; part < kWarpParts; ++part) {
    const Float2 b = ldg(reinterpret_cast<const Float2*>(bias + passing_row(part, 0)));
    z[0][part] = z[1][part] = {{b.x, b.y, b.x, b.y}};
  }
}

template <int kUnits>
TESSERA_DEVICE void clear(DepthSums<kUnits>& out) {
  TESSERA_UNROLL
  for (int i = 0; i < 2 * (kUnits / 2) * 4; ++i) {
    out[i / 4 % 2][i / 8][i % 4] = {};
  }
}

// Losses, dh, and the facts of 128 rows; the classes pass.
template <int kUnits>
TESSERA_GLOBAL void __launch_bounds__(kGradientThreads, 1)
    row_gradient_kernel(Passage passage, std::int64_t tiles, const float* bias,
                        View<const float, 2> weight, View<const std::int32_t, 1> targets,
                        RowOutput to) {
  TESSERA_SMEM(GradientSmem<kUnits>, s);
  const auto load = [&](std::int64_t tile) { passage.load_passing(s, tile); };
  passage.load_own(s);
  load(0);
  cp_async_commit();
  const std::int64_t first_row = static_cast<std::int64_t>(block_idx().x) * kOwn;
  OwnRow rows[4];
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    const std::int64_t row = first_row + own_row(slot);
    rows[slot].target = row < targets.shape[0] ? ldg(targets.data + row) : kNoTarget;
  }
  DepthSums<kUnits> out;
  clear<kUnits>(out);
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    turn_tile(tile, tiles, load);
    PairLogits z;
    start_from_class_bias(z, bias + tile * kPassing);
    add_logits(s, tile, passage.units, z);
    leave_tops(s, z, tile * kPassing + half_of_warp() * (kPassing / 2), rows);
    sync_pair();
    take_powers<kUnits>(s, z, rows, out);
    sync_pair();
    add_products<kUnits>(s, tile, passage.units, out);
  }
  leave_sums(s, rows);
  sync_pair();
  store_hidden_gradient<kUnits>(s, to, weight, first_row, rows, out);
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    if (half_of_warp() == slot / 2 && lane() % 4 == 0) {
      store_row(s, to, first_row, own_row(slot), rows[slot].target, rows[slot].others.top);
    }
  }
}

/// What goes out of the classes' pass: parts of dw, then of db; neither where nobody needs it.
struct ClassOutput {
  float *dw, *db;
  std::int64_t classes, columns;
};

// Logits become slopes; their sums over the rows grow.
template <int kUnits>
TESSERA_DEVICE void take_slopes(GradientSmem<kUnits>& s, PairLogits& z, std::int64_t tile,
                                std::int64_t first_class, float (&sums)[4]) {
  const auto& facts = s.facts[tile % 2];
  TESSERA_UNROLL
  for (int part = 0; part < kWarpParts; ++part) {
    TESSERA_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = passing_row(part, i);
      const float shift = facts[kShift][row];
      const float scale = facts[kScale][row];
      const std::int64_t target = std::bit_cast<std::int32_t>(facts[kTarget][row]) - first_class;
      TESSERA_UNROLL
      for (int slot = 0; slot < 4; ++slot) {
        float& x = z[slot / 2][part].c[2 * (slot % 2) + i];
        x = target == own_row(slot) ? facts[kTargetSlope][row]
                                    : RunningSum::power(x, shift) * scale;
        sums[slot] += x;
      }
    }
    put_slopes(s, 0, part, z[0][part]);
    put_slopes(s, 1, part, z[1][part]);
  }
}

// Over the four lanes and the two warps that share each class.
template <int kUnits>
TESSERA_DEVICE void store_bias_gradient(GradientSmem<kUnits>& s, const ClassOutput& to,
                                        std::int64_t first_class, float (&sums)[4]) {
  sync_block();  // the facts have been read
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    sums[slot] += shfl_xor(sums[slot], 1);
    sums[slot] += shfl_xor(sums[slot], 2);
    if (lane() % 4 == 0) {
      s.row.sum[half_of_warp()][own_row(slot)] = sums[slot];
    }
  }
  sync_block();
  const int own = linear_thread();
  if (to.db != nullptr && own < kOwn && first_class + own < to.classes) {
    stg(to.db + first_class + own, s.row.sum[0][own] + s.row.sum[1][own]);
  }
}

// dw and db of 128 classes over the tiles of rows of part block_idx().y.
template <int kUnits>
TESSERA_GLOBAL void __launch_bounds__(kGradientThreads, 1)
    class_gradient_kernel(Passage passage, std::int64_t tiles, std::int64_t part_tiles,
                          const float* bias, const float* facts, std::int64_t facts_apart,
                          ClassOutput to, std::int64_t parts_apart) {
  TESSERA_SMEM(GradientSmem<kUnits>, s);
  const auto load = [&](std::int64_t tile) {
    passage.load_passing(s, tile);
    const int piece = linear_thread();
    if (piece < kFacts * kPassing / 4) {
      const int fact = piece / (kPassing / 4);
      const int row = piece % (kPassing / 4) * 4;
      cp_async<16>(&s.facts[tile % 2][fact][row],
                   facts + fact * facts_apart + tile * kPassing + row);
    }
  };
  const std::int64_t begin = static_cast<std::int64_t>(block_idx().y) * part_tiles;
  const std::int64_t end = begin + part_tiles < tiles ? begin + part_tiles : tiles;
  passage.load_own(s);
  load(begin);
  cp_async_commit();
  const std::int64_t first_class = static_cast<std::int64_t>(block_idx().x) * kOwn;
  float start[4];
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    start[slot] = ldg(bias + first_class + own_row(slot));
  }
  float sums[4] = {};
  DepthSums<kUnits> out;
  clear<kUnits>(out);
  for (std::int64_t tile = begin; tile < end; ++tile) {
    turn_tile(tile, end, load);
    PairLogits z;
    TESSERA_UNROLL
    for (int i = 0; i < 2 * kWarpParts; ++i) {
      const int f = i / kWarpParts;
      z[f][i % kWarpParts] = {{start[2 * f], start[2 * f], start[2 * f + 1], start[2 * f + 1]}};
    }
    add_logits(s, tile, passage.units, z);
    take_slopes(s, z, tile, first_class, sums);
    sync_pair();
    add_products<kUnits>(s, tile, passage.units, out);
  }
  const std::int64_t part = block_idx().y * parts_apart;
  to.db = to.db == nullptr ? nullptr : to.db + part;
  store_bias_gradient(s, to, first_class, sums);
  if (to.dw == nullptr) {
    return;  // all threads, and no barrier follows
  }
  const View<float, 2> dw{to.dw + part, {to.classes, to.columns}, {to.columns, 1}};
  const bool aligned = pairs_are_aligned(dw);
  for_each_pair<kUnits>(out, [&](int slot, int column, float x, float y) {
    const std::int64_t row = first_class + own_row(slot);
    if (row < dw.shape[0]) {
      store_two(dw.row(row), column, dw.shape[1], x, y, aligned);
    }
  });
}

// Parts in order, a thread per element of dw and then of db.
TESSERA_GLOBAL void __launch_bounds__(kGradientThreads)
    add_gradient_parts_kernel(const float* parts, std::int64_t count, std::int64_t apart,
                              std::int64_t elements_of_dw, float* dw, float* db) {
  const std::int64_t i = global_thread();
  float* to = i < elements_of_dw ? dw : db;
  if (i < apart && to != nullptr) {
    float sum = 0;
    for (std::int64_t part = 0; part < count; ++part) {
      sum += ldg(parts + part * apart + i);
    }
    stg(to + (i < elements_of_dw ? i : i - elements_of_dw), sum);
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
