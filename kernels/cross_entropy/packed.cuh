// Rows in the layout of PackedRows: how they are written, and read as operands of mma. A block of 8
// x 8 bf16 or 8 x 4 f32 is 128 bytes in a piece, in memory and in shared memory, so that copies are
// straight and no ldmatrix meets a bank twice, transposed or not.
#pragma once

#include "core/gpu/tile.cuh"
#include "core/gpu/warp.cuh"
#include "kernels/cross_entropy/cross_entropy_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kUnitWords = PackedRows::kUnitWords;
constexpr int kBlockWords = 32;
constexpr int kPackThreads = 256;

struct Word4 {
  std::uint32_t w[4];
};

// Four 8 x 8 blocks of which lane l gives a row of block l / 8.
TESSERA_DEVICE Word4 four_blocks(const std::uint32_t* row) {
  Word4 mine;
  ldmatrix_x4(mine.w, row);
  return mine;
}
// Four blocks in a piece.
TESSERA_DEVICE Word4 operand(const std::uint32_t* words) { return four_blocks(words + 4 * lane()); }

/// A unit of f32 numbers: 16 of the depth, blocks of 8 rows by 4. An mma multiplies eight of the
/// depth, 2 c as column c and 2 c + 1 as column 4 + c, on both sides.
struct FloatUnit {
  static constexpr int kDepth = PackedRows::kF32Depth;
};
/// Of bf16: 32 of the depth, blocks of 8 rows by 8.
struct RoundedUnit {
  static constexpr int kDepth = PackedRows::kBf16Depth;
};

// sum += a b^T by halves `half` of the registers of b.
TESSERA_DEVICE void multiply(Acc<16, 8>& sum, const Word4& a, const Word4& b, int half) {
  mma(sum, Frag<16, 16>{{a.w[0], a.w[1], a.w[2], a.w[3]}},
      Frag<8, 16>{{b.w[2 * half], b.w[2 * half + 1]}});
}

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
template <class T>
TESSERA_DEVICE bool pairs_are_aligned(View<T, 2> m) {
  return m.stride[0] % 2 == 0 && reinterpret_cast<std::uintptr_t>(m.data) % sizeof(Float2) == 0;
}

// Registers of 8 rows from `first` in unit `unit` as a lane holds them: row lane / 4 of each block.
TESSERA_DEVICE Word4 packed_words(FloatUnit, View<const float, 2> m, std::int64_t first, int unit,
                                  bool aligned) {
  Word4 out;
  TESSERA_UNROLL
  for (int half = 0; half < 2; ++half) {
    const Float2 x =
        pair_of(m, first + lane() / 4, 16 * unit + 8 * half + 2 * (lane() % 4), aligned);
    out.w[2 * half] = std::bit_cast<std::uint32_t>(x.x);
    out.w[2 * half + 1] = std::bit_cast<std::uint32_t>(x.y);
  }
  return out;
}
TESSERA_DEVICE Word4 packed_words(RoundedUnit, View<const float, 2> m, std::int64_t first, int unit,
                                  bool aligned) {
  Word4 out;
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Float2 x = pair_of(m, first + lane() / 4, 32 * unit + 8 * i + 2 * (lane() % 4), aligned);
    out.w[i] = pack_bf16x2(x.x, x.y);
  }
  return out;
}

// A warp per unit. The biases of rows that fill the last tile are -inf.
template <class Unit>
TESSERA_GLOBAL void __launch_bounds__(kPackThreads)
    pack_kernel(View<const float, 2> m, View<const float, 1> bias, PackedRows shape,
                std::uint32_t* packed, float* packed_bias) {
  const std::int64_t at = static_cast<std::int64_t>(block_idx().x) * (kPackThreads / 32) + warp();
  if (at >= shape.rows / 8 * shape.units) {
    return;  // a whole warp, and no barrier follows
  }
  const std::int64_t group =
      at / (shape.together * shape.units) * shape.together + at % shape.together;
  const std::int64_t first = 8 * group;
  const int unit = static_cast<int>(at / shape.together % shape.units);
  const Word4 out = packed_words(Unit{}, m, first, unit, pairs_are_aligned(m));
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    stg(packed + at * kUnitWords + kBlockWords * i + lane(), out.w[i]);
  }
  if (packed_bias != nullptr && unit == 0 && lane() < 8) {
    const std::int64_t row = first + lane();
    const float b = bias.shape[0] > 0 && row < bias.shape[0] ? ldg(bias.data + row) : 0.0F;
    stg(packed_bias + row, row < m.shape[0] ? b : -__builtin_huge_valf());
  }
}

/// A maximum and the sum of exp(x - top) under it.
struct RunningSum {
  float top = -__builtin_huge_valf(), sum = 0;
  static constexpr float kLog2E = 1.44269502F;

  // Nothing but -inf so far has the shift 0, so that its exponentials are 0, not NaN.
  TESSERA_DEVICE static float shift_of(float top) { return top < -3.0e38F ? 0.0F : top; }
  // exp(x - shift)
  TESSERA_DEVICE static float power(float x, float shift) { return ex2((x - shift) * kLog2E); }
  // The factor of sums so far.
  TESSERA_DEVICE float raise(float value) {
    const float before = top;
    top = max(before, value);
    const float shrink = power(before, shift_of(top));
    sum *= shrink;
    return shrink;
  }
};

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
