// Cross-entropy of rows of logits h W^T + b that are never stored. A block keeps 128 rows of h in
// shared memory, split in two bf16 (core/gpu/tile.cuh), and streams the weight past them, 256
// classes and 16 of the depth at a time, two or four deep; a warp has 32 rows by 128 classes in
// registers. Of each row a lane keeps maximum, sum of exponentials under it and, where it meets it,
// the target's logit: once through the weight for 128 rows, T floats out. Operands lie in shared
// memory as lanes hold them, 16 bytes each, so that no bank is met twice.
#pragma once

#include "core/gpu/tile.cuh"
#include "core/gpu/warp.cuh"
#include "kernels/cross_entropy/cross_entropy_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kLossRows = 128;  // of a block
constexpr int kLossThreads = 256;
constexpr int kHalf = 128;             // classes of a warp in a tile
constexpr int kParts = kHalf / 8;      // accumulators of a fragment
constexpr int kOperandWords = 4 * 32;  // of a warp, 16 bytes a lane
constexpr int kStageWords = 2 * kParts * kOperandWords;
constexpr float kLog2E = 1.44269502F;

struct Word4 {
  std::uint32_t w[4];
};

/// A maximum and the sum of exp(x - top) under it.
struct RunningSum {
  float top = -__builtin_huge_valf(), sum = 0;

  // Nothing but -inf so far has the shift 0, so that its exponentials are 0, not NaN.
  TESSERA_DEVICE static float shift_of(float top) { return top < -3.0e38F ? 0.0F : top; }
  TESSERA_DEVICE void raise(float value) {
    const float before = top;
    top = max(before, value);
    sum *= ex2((before - shift_of(top)) * kLog2E);
  }
};

// Row `row` of a matrix at depth k and k + 1; zeros outside.
TESSERA_DEVICE Float2 pair_of(View<const float, 2> m, std::int64_t row, int k, bool aligned) {
  if (row >= m.shape[0] || k >= m.shape[1]) {
    return {0.0F, 0.0F};
  }
  const float* at = m.row(row) + k;
  if (aligned && k + 1 < m.shape[1]) {
    return ldg(reinterpret_cast<const Float2*>(at));
  }
  return {ldg(at), k + 1 < m.shape[1] ? ldg(at + 1) : 0.0F};
}
TESSERA_DEVICE bool pairs_are_aligned(View<const float, 2> m) {
  return m.stride[0] % 2 == 0 && reinterpret_cast<std::uintptr_t>(m.data) % sizeof(Float2) == 0;
}

// A warp per 8 classes and 16 of the depth: high and low second operand. The classes that fill the
// last tile have the bias -inf.
TESSERA_GLOBAL void __launch_bounds__(kLossThreads)
    pack_weight_kernel(View<const float, 2> weight, View<const float, 1> bias, int steps,
                       std::int64_t units, std::uint32_t* packed, float* packed_bias) {
  const std::int64_t unit = static_cast<std::int64_t>(block_idx().x) * (kLossThreads / 32) + warp();
  if (unit >= units) {
    return;  // a whole warp, and no barrier follows
  }
  const std::int64_t tile = unit / (2 * kParts * steps);
  const int step = static_cast<int>(unit / (2 * kParts) % steps);
  const std::int64_t first = tile * LossScratch::kColumns + unit % (2 * kParts) * 8;
  const bool aligned = pairs_are_aligned(weight);
  const std::int64_t row = first + lane() / 4;
  Word4 out{};
  TESSERA_UNROLL
  for (int half = 0; half < 2; ++half) {
    const Float2 x = pair_of(weight, row, 16 * step + 8 * half + 2 * (lane() % 4), aligned);
    const SplitPair split = split_pair(x.x, x.y);
    out.w[half] = split.high;
    out.w[2 + half] = split.low;
  }
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    stg(packed + unit * kOperandWords + 32 * i + lane(), out.w[i]);
  }
  if (step == 0 && lane() < 8) {
    const std::int64_t column = first + lane();
    const float b = bias.shape[0] > 0 && column < bias.shape[0] ? ldg(bias.data + column) : 0.0F;
    stg(packed_bias + column, column < weight.shape[0] ? b : -__builtin_huge_valf());
  }
}

template <int kSteps>
struct LossSmem {
  static constexpr int kStages = kSteps > 8 ? 2 : 4;  // 256 of depth leave room for two on an A100
  alignas(16) std::uint32_t h[kSteps][kLossRows / 16][2][kOperandWords];
  alignas(16) std::uint32_t w[kStages][kStageWords];
  RunningSum part[2][kLossRows];
  float at_target[kLossRows];
};

// The block's rows of h as first operands, a warp a fragment of 16 rows.
template <int kSteps>
TESSERA_DEVICE void load_hidden(LossSmem<kSteps>& s, View<const float, 2> h, std::int64_t first_row,
                                int steps) {
  const bool aligned = pairs_are_aligned(h);
  for (int step = 0; step < steps; ++step) {
    Word4 high{};
    Word4 low{};
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = first_row + 16 * warp() + lane() / 4 + 8 * (i % 2);
      const Float2 x = pair_of(h, row, 16 * step + 8 * (i / 2) + 2 * (lane() % 4), aligned);
      const SplitPair split = split_pair(x.x, x.y);
      high.w[i] = split.high;
      low.w[i] = split.low;
    }
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      s.h[step][warp()][0][32 * i + lane()] = high.w[i];
      s.h[step][warp()][1][32 * i + lane()] = low.w[i];
    }
  }
}

/// The weight as it passes: stage i is 16 of the depth of a tile.
struct WeightStream {
  const std::uint32_t* packed;
  std::int64_t stages;

  template <int kSteps>
  TESSERA_DEVICE void load(LossSmem<kSteps>& s, std::int64_t stage) const {
    if (stage < stages) {
      for (int i = 4 * linear_thread(); i < kStageWords; i += 4 * kLossThreads) {
        cp_async<16>(&s.w[stage % LossSmem<kSteps>::kStages][i], packed + stage * kStageWords + i);
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

// Word 32 i + l of an operand is register i of lane l: four blocks of 8 rows of 16 bytes.
TESSERA_DEVICE Word4 operand(const std::uint32_t* words) {
  Word4 mine;
  ldmatrix_x4(mine.w, words + 4 * lane());
  return mine;
}

// logits += h w^T over the 16 of the depth in a stage.
template <int kFrags, int kSteps>
TESSERA_DEVICE void add_step(const LossSmem<kSteps>& s, int step, std::int64_t stage,
                             WarpLogits& logits) {
  SplitFrag<16, 16> a[kFrags];
  TESSERA_UNROLL
  for (int f = 0; f < kFrags; ++f) {
    const auto& both = s.h[step][warp() / 2 * 2 + f];
    const Word4 high = operand(both[0]);
    const Word4 low = operand(both[1]);
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[f].high.r[i] = high.w[i];
      a[f].low.r[i] = low.w[i];
    }
  }
  const std::uint32_t* mine =
      s.w[stage % LossSmem<kSteps>::kStages] + warp() % 2 * kParts * kOperandWords;
  TESSERA_UNROLL
  for (int part = 0; part < kParts; ++part) {
    const Word4 w = operand(mine + part * kOperandWords);
    const SplitFrag<8, 16> b{{{w.w[0], w.w[1]}}, {{w.w[2], w.w[3]}}};
    TESSERA_UNROLL
    for (int f = 0; f < kFrags; ++f) {
      mma(logits.sum[f][part], a[f], b);
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
    added += ex2((sum[part].c[2 * half] - shift) * kLog2E);
    added += ex2((sum[part].c[2 * half + 1] - shift) * kLog2E);
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
  std::int32_t target[4];
};

TESSERA_DEVICE int row_of_slot(int slot) { return warp() / 2 * 32 + 8 * slot + lane() / 4; }

template <int kFrags, int kSteps>
TESSERA_DEVICE void take_tile(LossSmem<kSteps>& s, const WarpLogits& logits, std::int64_t first,
                              LossRows& rows) {
  TESSERA_UNROLL
  for (int slot = 0; slot < 2 * kFrags; ++slot) {
    take_logits(logits.sum[slot / 2], slot % 2, rows.run[slot]);
    keep_target(logits.sum[slot / 2], slot % 2, rows.target[slot] - first,
                s.at_target[row_of_slot(slot)]);
  }
}

// Over the four lanes that share each row; the classes of the two halves stay apart.
template <int kSteps>
TESSERA_DEVICE void leave_parts(LossSmem<kSteps>& s, LossRows& rows, int fragments) {
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

template <int kSteps>
TESSERA_DEVICE float loss_of_row(const LossSmem<kSteps>& s, int row) {
  RunningSum a = s.part[0][row];
  RunningSum b = s.part[1][row];
  const float top = max(a.top, b.top);
  a.raise(top);
  b.raise(top);
  return log(a.sum + b.sum) + top - s.at_target[row];
}

template <int kSteps>
TESSERA_GLOBAL void __launch_bounds__(kLossThreads, 1)
    loss_kernel(View<const float, 2> h, const std::uint32_t* packed, const float* bias,
                std::int64_t classes, View<const std::int32_t, 1> targets,
                View<const float, 1> row_weight, View<float, 1> loss) {
  constexpr int kStages = LossSmem<kSteps>::kStages;
  TESSERA_SMEM(LossSmem<kSteps>, s);
  const LossScratch shape(classes, h.shape[1]);
  const int steps = static_cast<int>(shape.steps);
  const WeightStream stream{packed, shape.tiles * steps};
  for (int i = 0; i < kStages - 1; ++i) {
    stream.load(s, i);
  }
  const std::int64_t first_row = static_cast<std::int64_t>(block_idx().x) * kLossRows;
  load_hidden(s, h, first_row, steps);
  const std::int64_t left = h.shape[0] - first_row - warp() / 2 * 32;
  const int fragments = left > 16 ? 2 : left > 0 ? 1 : 0;
  LossRows rows;
  TESSERA_UNROLL
  for (int slot = 0; slot < 4; ++slot) {
    const std::int64_t row = first_row + row_of_slot(slot);
    rows.target[slot] = row < h.shape[0] ? ldg(targets.data + row) : -1;
  }
  WarpLogits logits;
  std::int64_t stage = 0;
  for (std::int64_t first = warp() % 2 * kHalf; stage < stream.stages;
       first += LossScratch::kColumns) {
    const int mine = first < classes ? fragments : 0;
    start_from_bias(logits, bias + first);
    for (int step = 0; step < steps; ++step, ++stage) {
      cp_async_wait<kStages - 2>();
      sync_block();  // the stage is here, and the one before has been read
      stream.load(s, stage + kStages - 1);
      if (mine == 2) {
        add_step<2>(s, step, stage, logits);
      } else if (mine == 1) {
        add_step<1>(s, step, stage, logits);
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
