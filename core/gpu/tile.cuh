// Fragments of mma and the shared tiles that they are loaded from, written with the primitives. The
// vocabulary is that of HazyResearch/ThunderKittens, the layouts are those of the PTX ISA ("Matrix
// fragments for mma.m16n8k16", "... for mma.m16n8k8"), written a second time in
// core/simt/tensor_core.cpp. bf16 is made of 8 x 8 blocks: in a block, lane l holds row l / 4,
// columns 2 (l % 4) and + 1. f32 is multiplied as f32, in three products of tf32.
#pragma once

#include <bit>
#include <cstdint>

#include "core/gpu/prim.cuh"

namespace tessera::TESSERA_GPU_NS {

/// Row and column of element e of this lane's part of an Acc<16, 8>.
TESSERA_DEVICE int acc_row(int e) { return lane() / 4 + 8 * (e / 2); }
TESSERA_DEVICE int acc_column(int e) { return 2 * (lane() % 4) + e % 2; }

/// One lane's part of a bf16 tile, two elements a register. Register i is block (i % (kRows / 8),
/// i / (kRows / 8)): 16 rows are a first operand of mma, 8 rows a second one, transposed.
template <int kRows, int kColumns>
struct Frag {
  static constexpr int kRegisters = kRows / 8 * (kColumns / 8);
  std::uint32_t r[kRegisters];

  /// Rows [8 block, 8 block + 8).
  TESSERA_DEVICE Frag<8, kColumns> rows(int block) const {
    Frag<8, kColumns> part;
    TESSERA_UNROLL
    for (int i = 0; i < kColumns / 8; ++i) {
      part.r[i] = r[block + i * (kRows / 8)];
    }
    return part;
  }
};

/// One lane's part of an f32 tile for m16n8k8 on tf32, an element a register: lane l has row l / 4,
/// column l % 4 of blocks of 8 x 4. Register i is block (i % (kRows / 8), i / (kRows / 8)).
template <int kRows, int kColumns>
struct FloatFrag {
  static constexpr int kRegisters = kRows / 8 * (kColumns / 4);
  std::uint32_t r[kRegisters];

  /// Rows [8 block, 8 block + 8).
  TESSERA_DEVICE FloatFrag<8, kColumns> rows(int block) const {
    FloatFrag<8, kColumns> part;
    TESSERA_UNROLL
    for (int i = 0; i < kColumns / 4; ++i) {
      part.r[i] = r[block + i * (kRows / 8)];
    }
    return part;
  }
};

/// The tf32 (11 bits) next to x, away from zero between two.
TESSERA_DEVICE std::uint32_t tf32_of(float x) {
  return (std::bit_cast<std::uint32_t>(x) + 0x1000U) & 0xffffe000U;
}

/// f32 numbers as the sums of two tf32, to 2^-23 of them and without bias: the high one is
/// rounded to nearest, the hardware cuts the low one off. What rounds to an infinity (3.4e38)
/// becomes NaN.
template <int kRegisters>
struct Tf32Pair {
  std::uint32_t high[kRegisters], low[kRegisters];
};
template <int kRegisters>
TESSERA_DEVICE Tf32Pair<kRegisters> tf32_pair(const std::uint32_t (&words)[kRegisters]) {
  Tf32Pair<kRegisters> pair;
  TESSERA_UNROLL
  for (int i = 0; i < kRegisters; ++i) {
    const auto x = std::bit_cast<float>(words[i]);
    pair.high[i] = tf32_of(x);
    pair.low[i] = std::bit_cast<std::uint32_t>(x - std::bit_cast<float>(pair.high[i]));
  }
  return pair;
}

/// sum += a b^T, products over 16 or 8 columns of both.
TESSERA_DEVICE void mma(Acc<16, 8>& sum, const Frag<16, 16>& a, const Frag<8, 16>& b) {
  mma_m16n8k16(sum, a.r, b.r);
}
TESSERA_DEVICE void mma(Acc<16, 8>& sum, const Frag<16, 8>& a, const Frag<8, 8>& b) {
  mma_m16n8k8(sum, a.r, b.r[0]);
}
/// The same of f32: low high + high low + high high, 2^-21 of a product at most is left out (Ootomo
/// and Yokota, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32
/// theoretical peak performance", 2022). Tensor cores cut their sums off where f32 rounds them: in
/// a long sum that error would grow with its length. So the products of eight columns are summed on
/// their own, and their sum is added with one rounding. kA operands of 16 rows meet kB of 8, each
/// product in turn, so that none waits for the one before: sum(i, j) += a[i] b[j]^T.
template <int kA, int kB, class Sum>
TESSERA_DEVICE void add_products(Sum sum, const FloatFrag<16, 8> (&a)[kA],
                                 const FloatFrag<8, 8> (&b)[kB]) {
  Tf32Pair<4> x[kA];
  Tf32Pair<2> y[kB];
  TESSERA_UNROLL
  for (int i = 0; i < kA; ++i) {
    x[i] = tf32_pair(a[i].r);
  }
  TESSERA_UNROLL
  for (int j = 0; j < kB; ++j) {
    y[j] = tf32_pair(b[j].r);
  }
  Acc<16, 8> part[kA * kB];
  TESSERA_UNROLL
  for (int e = 0; e < kA * kB; ++e) {
    part[e] = {{0.0F, 0.0F, 0.0F, 0.0F}};
    mma_m16n8k8_tf32(part[e], x[e / kB].low, y[e % kB].high);
  }
  TESSERA_UNROLL
  for (int e = 0; e < kA * kB; ++e) {
    mma_m16n8k8_tf32(part[e], x[e / kB].high, y[e % kB].low);
  }
  TESSERA_UNROLL
  for (int e = 0; e < kA * kB; ++e) {
    mma_m16n8k8_tf32(part[e], x[e / kB].high, y[e % kB].high);
  }
  TESSERA_UNROLL
  for (int e = 0; e < 4 * kA * kB; ++e) {
    sum(e / 4 / kB, e / 4 % kB).c[e % 4] += part[e / 4].c[e % 4];
  }
}

/// Columns [8 step, 8 step + 8) of a fragment.
template <int kRows, int kColumns>
TESSERA_DEVICE FloatFrag<kRows, 8> columns(const FloatFrag<kRows, kColumns>& f, int step) {
  FloatFrag<kRows, 8> part;
  TESSERA_UNROLL
  for (int i = 0; i < kRows / 4; ++i) {
    part.r[i] = f.r[kRows / 4 * step + i];
  }
  return part;
}

template <int kColumns>
TESSERA_DEVICE void mma(Acc<16, 8>& sum, const FloatFrag<16, kColumns>& a,
                        const FloatFrag<8, kColumns>& b) {
  TESSERA_UNROLL
  for (int step = 0; step < kColumns / 8; ++step) {
    const FloatFrag<16, 8> left[1] = {columns(a, step)};
    const FloatFrag<8, 8> right[1] = {columns(b, step)};
    add_products([&](int, int) -> Acc<16, 8>& { return sum; }, left, right);
  }
}

/// Two accumulators += a times the first and the last 8 rows of b, transposed.
template <int kColumns>
TESSERA_DEVICE void mma_pair(Acc<16, 8>& first, Acc<16, 8>& last, const Frag<16, kColumns>& a,
                             const Frag<16, kColumns>& b) {
  mma(first, a, b.rows(0));
  mma(last, a, b.rows(1));
}
template <int kColumns>
TESSERA_DEVICE void mma_pair(Acc<16, 8>& first, Acc<16, 8>& last, const FloatFrag<16, kColumns>& a,
                             const FloatFrag<16, kColumns>& b) {
  TESSERA_UNROLL
  for (int step = 0; step < kColumns / 8; ++step) {
    const FloatFrag<16, 8> left[1] = {columns(a, step)};
    const FloatFrag<8, 8> right[2] = {columns(b.rows(0), step), columns(b.rows(1), step)};
    add_products([&](int, int j) -> Acc<16, 8>& { return j == 0 ? first : last; }, left, right);
  }
}

/// Two neighbouring accumulators as one operand: what leaves one product enters the next.
TESSERA_DEVICE void round_to(Frag<16, 16>& to, const Acc<16, 8>& left, const Acc<16, 8>& right) {
  TESSERA_UNROLL
  for (int i = 0; i < 2; ++i) {
    to.r[i] = pack_bf16x2(left.c[2 * i], left.c[2 * i + 1]);
    to.r[2 + i] = pack_bf16x2(right.c[2 * i], right.c[2 * i + 1]);
  }
}
/// f32 keeps its bits. Of eight columns, column 2 c goes to register column c and 2 c + 1 to 4 + c:
/// an order of the sum like any other, for which the second operand is read (load_transposed).
TESSERA_DEVICE void round_to(FloatFrag<16, 16>& to, const Acc<16, 8>& left,
                             const Acc<16, 8>& right) {
  TESSERA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int e = i % 2 * 2 + i / 2;
    to.r[i] = std::bit_cast<std::uint32_t>(left.c[e]);
    to.r[4 + i] = std::bit_cast<std::uint32_t>(right.c[e]);
  }
}

/// Where the 16-byte units of a row lie. The eight rows of an ldmatrix meet no bank twice.
struct Swizzled {  // unit u of row r at u ^ f(r); rows of 16 bytes need none
  static constexpr int kPad = 0;
  TESSERA_DEVICE static constexpr int place(int row, int unit, int units) {
    return units == 1   ? unit
           : units == 2 ? unit ^ (row >> 2 & 1)
           : units == 4 ? unit ^ (row >> 1 & 3)
                        : unit ^ (row & 7);
  }
};
struct Padded {  // one unit more: an odd stride
  static constexpr int kPad = 8;
  TESSERA_DEVICE static constexpr int place(int /*row*/, int unit, int /*units*/) { return unit; }
};

/// A tile of bf16 in shared memory.
template <int kRows, int kColumns, class Swizzle = Swizzled>
struct alignas(16) SmemTile {
  static constexpr int kUnits = kColumns / 8;
  static_assert(kColumns % 8 == 0 && (kUnits & (kUnits - 1)) == 0);
  std::uint16_t bits[kRows][kColumns + Swizzle::kPad];

  TESSERA_DEVICE std::uint16_t* unit(int row, int u) {
    return &bits[row][8 * Swizzle::place(row, u, kUnits)];
  }
  TESSERA_DEVICE const std::uint16_t* unit(int row, int u) const {
    return &bits[row][8 * Swizzle::place(row, u, kUnits)];
  }
  TESSERA_DEVICE std::uint16_t& at(int row, int column) {
    return unit(row, column / 8)[column % 8];
  }
};

/// to = tile[row, row + 16)[column, column + 16) or [column, column + 8).
template <class Tile>
TESSERA_DEVICE void load(Frag<16, 16>& to, const Tile& tile, int row, int column) {
  ldmatrix_x4(to.r, tile.unit(row + lane() % 16, column / 8 + lane() / 16));
}
template <class Tile>
TESSERA_DEVICE void load(Frag<16, 8>& to, const Tile& tile, int row, int column) {
  ldmatrix_x2(to.r, tile.unit(row + lane() % 16, column / 8));
}
/// to = the transpose of tile[row, row + 16)[column, column + 16) or [column, column + 8).
template <class Tile>
TESSERA_DEVICE void load_transposed(Frag<16, 16>& to, const Tile& tile, int row, int column) {
  ldmatrix_x4_trans(to.r,
                    tile.unit(row + lane() / 16 * 8 + lane() % 8, column / 8 + lane() / 8 % 2));
}
template <class Tile>
TESSERA_DEVICE void load_transposed(Frag<8, 16>& to, const Tile& tile, int row, int column) {
  ldmatrix_x2_trans(to.r, tile.unit(row + lane() % 16, column / 8));
}

/// A tile of f32 in shared memory, 16-byte slots in lines of eight, which meet all banks. Neither
/// the eight rows of an ldmatrix nor the 32 elements of load_transposed meet a bank twice.
template <int kRows, int kColumns>
struct alignas(16) FloatTile {
  static constexpr int kUnits = kColumns / 4;
  static_assert(kColumns % 8 == 0 && (kUnits & (kUnits - 1)) == 0);
  float at[kRows * kColumns];

  TESSERA_DEVICE static constexpr int place(int row, int u) {
    const int slot = row * kUnits + u;
    const int line = slot / 8;
    return slot ^ (kUnits == 2   ? 3 * (line & 1)
                   : kUnits == 4 ? 2 * (line & 3) + (line >> 1 & 1)
                                 : row & 7);
  }
  TESSERA_DEVICE float* unit(int row, int u) { return &at[4 * place(row, u)]; }
  TESSERA_DEVICE const float* unit(int row, int u) const { return &at[4 * place(row, u)]; }
};

/// The same of any height, as it lies somewhere.
template <int kColumns>
struct FloatRows {
  const float* at;
  TESSERA_DEVICE const float* unit(int row, int u) const {
    return at + 4 * FloatTile<8, kColumns>::place(row, u);
  }
};

/// to = tile[row, row + 16)[column, column + kColumns).
template <int kColumns, class Tile>
TESSERA_DEVICE void load(FloatFrag<16, kColumns>& to, const Tile& tile, int row, int column) {
  TESSERA_UNROLL
  for (int step = 0; step < kColumns / 8; ++step) {
    std::uint32_t part[4];
    ldmatrix_x4(part, tile.unit(row + lane() % 16, column / 4 + 2 * step + lane() / 16));
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      to.r[4 * step + i] = part[i];
    }
  }
}
/// to = the transpose of tile[row, row + 16)[column, column + kFragRows), its columns in the order
/// of round_to().
template <int kFragRows, class Tile>
TESSERA_DEVICE void load_transposed(FloatFrag<kFragRows, 16>& to, const Tile& tile, int row,
                                    int column) {
  TESSERA_UNROLL
  for (int i = 0; i < kFragRows / 2; ++i) {
    const int block = i / (kFragRows / 8);
    const int from_row = row + 8 * (block / 2) + 2 * (lane() % 4) + block % 2;
    const int from_column = column + 8 * (i % (kFragRows / 8)) + lane() / 4;
    to.r[i] = std::bit_cast<std::uint32_t>(tile.unit(from_row, from_column / 4)[from_column % 4]);
  }
}

}  // namespace tessera::TESSERA_GPU_NS
