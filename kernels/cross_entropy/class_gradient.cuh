// The classes' pass of the loss and its gradients (gradient_tile.cuh): dw and db in parts of rows,
// and their sum in order.
#pragma once

#include "kernels/cross_entropy/gradient_tile.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

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
