// Fragments of mma.m16n8k16 and the shared tiles that they are loaded from, written with the
// primitives. The vocabulary is that of HazyResearch/ThunderKittens, the layouts are those of the
// PTX ISA ("Matrix fragments for mma.m16n8k16"), written a second time in
// core/simt/tensor_core.cpp. Everything is made of 8 x 8 blocks: in a block, lane l holds row l /
// 4, columns 2 (l % 4) and + 1.
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

/// f32 as the sum of two bf16, to 2^-18 of it (Henry, Tang, Heinecke 2019).
template <int kRows, int kColumns>
struct SplitFrag {
  Frag<kRows, kColumns> high, low;

  TESSERA_DEVICE SplitFrag<8, kColumns> rows(int block) const {
    return {high.rows(block), low.rows(block)};
  }
};

/// Two f32 as bf16, and what bf16 leaves of them. Infinities, and what rounds to one (3.39e38),
/// come out of a product as NaN.
struct SplitPair {
  std::uint32_t high, low;
};
TESSERA_DEVICE SplitPair split_pair(float x, float y) {
  const std::uint32_t high = pack_bf16x2(x, y);
  return {high, pack_bf16x2(x - std::bit_cast<float>(high << 16U),
                            y - std::bit_cast<float>(high & 0xffff0000U))};
}

/// sum += a b^T, products over 16 or 8 columns of both.
TESSERA_DEVICE void mma(Acc<16, 8>& sum, const Frag<16, 16>& a, const Frag<8, 16>& b) {
  mma_m16n8k16(sum, a.r, b.r);
}
TESSERA_DEVICE void mma(Acc<16, 8>& sum, const Frag<16, 8>& a, const Frag<8, 8>& b) {
  mma_m16n8k8(sum, a.r, b.r[0]);
}
/// The same of split operands, small products first; low times low is left out.
template <int kColumns>
TESSERA_DEVICE void mma(Acc<16, 8>& sum, const SplitFrag<16, kColumns>& a,
                        const SplitFrag<8, kColumns>& b) {
  mma(sum, a.high, b.low);
  mma(sum, a.low, b.high);
  mma(sum, a.high, b.high);
}

/// Two neighbouring accumulators as one operand: what leaves one product enters the next.
TESSERA_DEVICE void round_to(Frag<16, 16>& to, const Acc<16, 8>& left, const Acc<16, 8>& right) {
  TESSERA_UNROLL
  for (int i = 0; i < 2; ++i) {
    to.r[i] = pack_bf16x2(left.c[2 * i], left.c[2 * i + 1]);
    to.r[2 + i] = pack_bf16x2(right.c[2 * i], right.c[2 * i + 1]);
  }
}
TESSERA_DEVICE void round_to(SplitFrag<16, 16>& to, const Acc<16, 8>& left,
                             const Acc<16, 8>& right) {
  TESSERA_UNROLL
  for (int i = 0; i < 2; ++i) {
    const SplitPair l = split_pair(left.c[2 * i], left.c[2 * i + 1]);
    const SplitPair r = split_pair(right.c[2 * i], right.c[2 * i + 1]);
    to.high.r[i] = l.high;
    to.low.r[i] = l.low;
    to.high.r[2 + i] = r.high;
    to.low.r[2 + i] = r.low;
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

/// An f32 tile in shared memory as the sum of two.
template <int kRows, int kColumns, class Swizzle = Swizzled>
struct SplitTile {
  SmemTile<kRows, kColumns, Swizzle> high, low;
};
template <int kFragRows, int kFragColumns, int kRows, int kColumns, class Swizzle>
TESSERA_DEVICE void load(SplitFrag<kFragRows, kFragColumns>& to,
                         const SplitTile<kRows, kColumns, Swizzle>& tile, int row, int column) {
  load(to.high, tile.high, row, column);
  load(to.low, tile.low, row, column);
}
template <int kFragRows, int kFragColumns, int kRows, int kColumns, class Swizzle>
TESSERA_DEVICE void load_transposed(SplitFrag<kFragRows, kFragColumns>& to,
                                    const SplitTile<kRows, kColumns, Swizzle>& tile, int row,
                                    int column) {
  load_transposed(to.high, tile.high, row, column);
  load_transposed(to.low, tile.low, row, column);
}

}  // namespace tessera::TESSERA_GPU_NS
