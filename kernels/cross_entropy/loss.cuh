// Cross-entropy of rows of logits h W^T + b that are never stored. A block keeps 128 rows of h in
// shared memory as operands of tensor cores and streams the packed weight past them, 256 classes
// and a unit of the depth at a time, two or four deep; a warp has 32 rows by 128 classes in
// registers. Of each row a lane keeps maximum, sum of exponentials under it and, where it meets it,
// the target's logit: once through the weight for 128 rows, T floats out. f32 takes three products
// of tf32 (core/gpu/tile.cuh), six times the time of bf16: predicted for an H100, 51,200 rows, 8192
// classes, d = 256: 2.1 ms.
#pragma once

#include "kernels/cross_entropy/packed.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kLossRows = 128;  // of a block
constexpr int kLossThreads = 256;
constexpr int kHalf = 128;         // classes of a warp in a tile
constexpr int kParts = kHalf / 8;  // accumulators of a fragment
constexpr int kStageWords = 2 * kParts * kUnitWords;

template <int kUnits>
struct LossSmem {
  static constexpr int kStages = kUnits > 8 ? 2 : 4;  // 16 units leave room for two on an A100
  alignas(16) std::uint32_t h[kUnits][kLossRows / 16][2][kUnitWords];
  alignas(16) std::uint32_t w[kStages][kStageWords];
  RunningSum part[2][kLossRows];
  std::int32_t target[kLossRows];  // in registers they would be what spills
  float at_target[kLossRows];
};

// A fragment of 16 rows of h at a unit: its two operands.
TESSERA_DEVICE void hidden_words(FloatUnit, View<const float, 2> h, std::int64_t first, int unit,
                                 bool aligned, Word4 (&out)[2]) {
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = first + lane() / 4 + 8 * (i % 2);
    const Float2 x = pair_of(h, row, 16 * unit + 8 * (i / 2) + 2 * (lane() % 4), aligned);
    out[i / 2].w[i % 2] = std::bit_cast<std::uint32_t>(x.x);
    out[i / 2].w[2 + i % 2] = std::bit_cast<std::uint32_t>(x.y);
  }
}
TESSERA_DEVICE void hidden_words(RoundedUnit, View<const float, 2> h, std::int64_t first, int unit,
                                 bool aligned, Word4 (&out)[2]) {
  TESSERA_UNROLL
  for (int i = 0; i < 8; ++i) {
    const std::int64_t row = first + lane() / 4 + 8 * (i % 2);
    const Float2 x = pair_of(h, row, 32 * unit + 8 * (i / 2) + 2 * (lane() % 4), aligned);
    out[i / 4].w[i % 4] = pack_bf16x2(x.x, x.y);
  }
}

// The block's rows of h as first operands, a warp a fragment of 16 rows.
template <class Unit, int kUnits>
TESSERA_DEVICE void load_hidden(LossSmem<kUnits>& s, View<const float, 2> h, std::int64_t first_row,
                                int units) {
  const bool aligned = pairs_are_aligned(h);
  for (int unit = 0; unit < units; ++unit) {
    Word4 both[2];
    hidden_words(Unit{}, h, first_row + 16 * warp(), unit, aligned, both);
    TESSERA_UNROLL
    for (int i = 0; i < 8; ++i) {
      s.h[unit][warp()][i / 4][kBlockWords * (i % 4) + lane()] = both[i / 4].w[i % 4];
    }
  }
}

/// The weight as it passes: stage i is a unit of the depth of a tile.
struct WeightStream {
  const std::uint32_t* packed;
  std::int64_t stages;

  template <int kUnits>
  TESSERA_DEVICE void load(LossSmem<kUnits>& s, std::int64_t stage) const {
    if (stage < stages) {
      for (int i = 4 * linear_thread(); i < kStageWords; i += 4 * kLossThreads) {
        cp_async<16>(&s.w[stage % LossSmem<kUnits>::kStages][i], packed + stage * kStageWords + i);
      }
    }
    cp_async_commit();
  }
};

/// A warp's logits: up to two fragments of 16 rows by 128 classes.
struct WarpLogits {
  Acc<16, 8> sum[2][kParts];
};

TESSERA_DEVICE void start_from_bias(WarpLogits& logits, const float* bias) {
  TESSERA_UNROLL
  for (int part = 0; part < kParts; ++part) {
    const Float2 b = ldg(reinterpret_cast<const Float2*>(bias + 8 * part + acc_column(0)));
    logits.sum[0][part] = logits.sum[1][part] = {{b.x, b.y, b.x, b.y}};
  }
}

// The operand `step` of two of a fragment, and the warp's classes in a stage.
template <int kUnits>
TESSERA_DEVICE Word4 hidden_operand(const LossSmem<kUnits>& s, int unit, int fragment, int step) {
  return operand(s.h[unit][warp() / 2 * 2 + fragment][step]);
}
template <int kUnits>
TESSERA_DEVICE const std::uint32_t* own_classes(const LossSmem<kUnits>& s, std::int64_t stage) {
  return s.w[stage % LossSmem<kUnits>::kStages] + warp() % 2 * kParts * kUnitWords;
}

// logits += h w^T over the depth of a stage; several accumulators in turn, so that none waits for
// itself.
template <int kFrags, int kUnits>
TESSERA_DEVICE void add_unit(RoundedUnit, const LossSmem<kUnits>& s, int unit, std::int64_t stage,
                             WarpLogits& logits) {
  Word4 a[kFrags][2];
  TESSERA_UNROLL
  for (int i = 0; i < 2 * kFrags; ++i) {
    a[i / 2][i % 2] = hidden_operand(s, unit, i / 2, i % 2);
  }
  const std::uint32_t* mine = own_classes(s, stage);
  TESSERA_UNROLL
  for (int part = 0; part < kParts; part += 2) {
    const Word4 w[2] = {operand(mine + part * kUnitWords), operand(mine + (part + 1) * kUnitWords)};
    TESSERA_UNROLL
    for (int step = 0; step < 2; ++step) {
      TESSERA_UNROLL
      for (int i = 0; i < 2 * kFrags; ++i) {
        multiply(logits.sum[i % kFrags][part + i / kFrags], a[i % kFrags][step], w[i / kFrags],
                 step);
      }
    }
  }
}
template <int kFrags, int kUnits>
TESSERA_DEVICE void add_unit(FloatUnit, const LossSmem<kUnits>& s, int unit, std::int64_t stage,
                             WarpLogits& logits) {
  const std::uint32_t* mine = own_classes(s, stage) + kUnitWords * (lane() / 16);
  TESSERA_KEEP_ROLLED
  for (int step = 0; step < 2; ++step) {
    FloatFrag<16, 8> a[kFrags];
    TESSERA_UNROLL
    for (int i = 0; i < kFrags; ++i) {
      const Word4 h = hidden_operand(s, unit, i, step);
      a[i] = {{h.w[0], h.w[1], h.w[2], h.w[3]}};
    }
    TESSERA_UNROLL
    for (int part = 0; part < kParts; part += 2) {
      const Word4 w =
          four_blocks(mine + part * kUnitWords + 2 * kBlockWords * step + 4 * (lane() % 16));
      const FloatFrag<8, 8> b[2] = {{{w.w[0], w.w[1]}}, {{w.w[2], w.w[3]}}};
      add_products([&](int i, int j) -> Acc<16, 8>& { return logits.sum[i][part + j]; }, a, b);
    }
  }
}

// The 32 logits of a lane in one of its rows: accumulator elements 2 half and 2 half + 1.
TESSERA_DEVICE void take_logits(const Acc<16, 8> (&sum)[kParts], int half, RunningSum& run) {
  float top = max(sum[0].c[2 * half], sum[0].c[2 * half + 1]);
  TESSERA_UNROLL
  for (int part = 1; part < kParts; ++part) {
    top = max(top, max(sum[part].c[2 * half], sum[part].c[2 * half + 1]));
  }
  run.raise(top);
  const float shift = RunningSum::shift_of(run.top);
  float added = 0;
  TESSERA_UNROLL
  for (int part = 0; part < kParts; ++part) {
    added += RunningSum::power(sum[part].c[2 * half], shift);
    added += RunningSum::power(sum[part].c[2 * half + 1], shift);
  }
  run.sum += added;
}

// Keeps the logit of class `target` of these 128, if it is this lane's.
TESSERA_DEVICE void keep_target(const Acc<16, 8> (&sum)[kParts], int half, std::int64_t target,
                                float& kept) {
  if (target >= 0 && target < kHalf && target % 8 / 2 == lane() % 4) {
    TESSERA_UNROLL
    for (int part = 0; part < kParts; ++part) {
      if (target / 8 == part) {
        kept = target % 2 == 0 ? sum[part].c[2 * half] : sum[part].c[2 * half + 1];
      }
    }
  }
}

/// What a lane knows of its four rows, 8 slot + lane / 4 of its warp's 32.
struct LossRows {
  RunningSum run[4];
};

TESSERA_DEVICE int row_of_slot(int slot) { return warp() / 2 * 32 + 8 * slot + lane() / 4; }

template <int kFrags, int kUnits>
TESSERA_DEVICE void take_tile(LossSmem<kUnits>& s, const WarpLogits& logits, std::int64_t first,
                              LossRows& rows) {
  TESSERA_UNROLL
  for (int slot = 0; slot < 2 * kFrags; ++slot) {
    take_logits(logits.sum[slot / 2], slot % 2, rows.run[slot]);
    const int row = row_of_slot(slot);
    keep_target(logits.sum[slot / 2], slot % 2, s.target[row] - first, s.at_target[row]);
  }
}

// Over the four lanes that share each row; the classes of the two halves stay apart.
template <int kUnits>
TESSERA_DEVICE void leave_parts(LossSmem<kUnits>& s, LossRows& rows, int fragments) {
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    if (slot < 2 * fragments) {
      RunningSum& run = rows.run[slot];
      const float other = max(run.top, shfl_xor(run.top, 1));
      run.raise(max(other, shfl_xor(other, 2)));
      run.sum += shfl_xor(run.sum, 1);
      run.sum += shfl_xor(run.sum, 2);
      if (lane() % 4 == 0) {
        s.part[warp() % 2][row_of_slot(slot)] = run;
      }
    }
  }
}

template <int kUnits>
TESSERA_DEVICE float loss_of_row(const LossSmem<kUnits>& s, int row) {
  RunningSum a = s.part[0][row];
  RunningSum b = s.part[1][row];
  const float top = max(a.top, b.top);
  a.raise(top);
  b.raise(top);
  return log(a.sum + b.sum) + top - s.at_target[row];
}

template <class Unit, int kUnits>
TESSERA_GLOBAL void __launch_bounds__(kLossThreads, 1)
    loss_kernel(View<const float, 2> h, const std::uint32_t* packed, const float* bias,
                std::int64_t classes, View<const std::int32_t, 1> targets,
                View<const float, 1> row_weight, View<float, 1> loss) {
  constexpr int kStages = LossSmem<kUnits>::kStages;
  TESSERA_SMEM(LossSmem<kUnits>, s);
  const LossScratch shape(classes, h.shape[1], Unit::kDepth);
  const int units = static_cast<int>(shape.weight.units);
  const WeightStream stream{packed, shape.tiles * units};
  for (int i = 0; i < kStages - 1; ++i) {
    stream.load(s, i);
  }
  const std::int64_t first_row = static_cast<std::int64_t>(block_idx().x) * kLossRows;
  load_hidden<Unit>(s, h, first_row, units);
  const std::int64_t left = h.shape[0] - first_row - warp() / 2 * 32;
  const int fragments = left > 16 ? 2 : left > 0 ? 1 : 0;
  if (linear_thread() < kLossRows) {  // seen after the first barrier
    const std::int64_t row = first_row + linear_thread();
    s.target[linear_thread()] = row < h.shape[0] ? ldg(targets.data + row) : -1;
  }
  LossRows rows;
  WarpLogits logits;
  std::int64_t stage = 0;
  for (std::int64_t first = warp() % 2 * kHalf; stage < stream.stages;
       first += LossScratch::kColumns) {
    const int mine = first < classes ? fragments : 0;
    start_from_bias(logits, bias + first);
    for (int unit = 0; unit < units; ++unit, ++stage) {
      cp_async_wait<kStages - 2>();
      sync_block();  // the stage is here, and the one before has been read
      stream.load(s, stage + kStages - 1);
      if (mine == 2) {
        add_unit<2>(Unit{}, s, unit, stage, logits);
      } else if (mine == 1) {
        add_unit<1>(Unit{}, s, unit, stage, logits);
      }
    }
    if (mine == 2) {
      take_tile<2>(s, logits, first, rows);
    } else if (mine == 1) {
      take_tile<1>(s, logits, first, rows);
    }
  }
  leave_parts(s, rows, fragments);
  sync_block();
  const std::int64_t row = first_row + linear_thread();
  if (linear_thread() < kLossRows && row < h.shape[0]) {
    const float weight = row_weight.shape[0] > 0 ? ldg(row_weight.data + row) : 1.0F;
    stg(loss.data + row, weight * loss_of_row(s, linear_thread()));
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
