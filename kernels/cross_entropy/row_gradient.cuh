// The rows' pass of the loss and its gradients (gradient_tile.cuh): losses, dh, and of each row the
// facts from which the classes' pass makes its slopes.
#pragma once

#include "kernels/cross_entropy/gradient_tile.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

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

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
