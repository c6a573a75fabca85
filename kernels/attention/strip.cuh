// Strips: 16 rows of a head that a warp has as operand of the tensor cores, or as result.
#pragma once

#include <cstdint>

#include "kernels/attention/rows.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

template <int kWidth>
constexpr int kDepth = kWidth < 16 ? kWidth : 16;  // of a product's step along the head

/// 16 rows as operand, in registers.
template <class T, int kWidth>
struct Strip {
  Part<T, 16, kDepth<kWidth>> at[kWidth / kDepth<kWidth>];

  template <int kRows>
  TESSERA_DEVICE void load_from(const Tile<T, kRows, kWidth>& tile, int row) {
    TESSERA_UNROLL
    for (int d = 0; d < kWidth / kDepth<kWidth>; ++d) {
      load(at[d], tile, row, d * kDepth<kWidth>);
    }
  }
  TESSERA_DEVICE const Part<T, 16, kDepth<kWidth>>& part(int d) const { return at[d]; }
};

/// f32 is read from shared memory at each use: in registers, with both tf32 of each number, it
/// would leave no room for the result.
template <int kWidth>
struct Strip<float, kWidth> {
  FloatRows<kWidth> rows;
  int first;

  template <int kRows>
  TESSERA_DEVICE void load_from(const Tile<float, kRows, kWidth>& tile, int row) {
    rows.at = tile.at;
    first = row;
  }
  TESSERA_DEVICE Part<float, 16, kDepth<kWidth>> part(int d) const {
    Part<float, 16, kDepth<kWidth>> p;
    load(p, rows, first, d * kDepth<kWidth>);
    return p;
  }
};

/// 16 rows as result.
template <int kWidth>
struct Sum {
  Acc<16, 8> at[kWidth / 8];

  TESSERA_DEVICE void clear() {
    TESSERA_UNROLL
    for (int e = 0; e < kWidth / 2; ++e) {
      at[e / 4].c[e % 4] = 0;
    }
  }
};

// s = strip (16, D) times rows [row, row + 16) of the tile, transposed.
template <class T, int kWidth, int kRows>
TESSERA_DEVICE void multiply(Block& s, const Strip<T, kWidth>& strip,
                             const Tile<T, kRows, kWidth>& tile, int row) {
  TESSERA_UNROLL
  for (int e = 0; e < 8; ++e) {
    s[e / 4].c[e % 4] = 0;
  }
  TESSERA_UNROLL
  for (int d = 0; d < kWidth / kDepth<kWidth>; ++d) {
    Part<T, 16, kDepth<kWidth>> other;
    load(other, tile, row, d * kDepth<kWidth>);
    mma_pair(s[0], s[1], strip.part(d), other);
  }
}

// sum (16, D) += weights (16, 16) times rows [row, row + 16) of the tile.
template <class T, int kWidth, int kRows>
TESSERA_DEVICE void add_rows(Sum<kWidth>& sum, const Part<T, 16, 16>& weights,
                             const Tile<T, kRows, kWidth>& tile, int row) {
  if constexpr (kWidth == 8) {
    Part<T, 8, 16> other;
    load_transposed(other, tile, row, 0);
    mma(sum.at[0], weights, other);
  } else {
    TESSERA_UNROLL
    for (int d = 0; d < kWidth / 16; ++d) {
      Part<T, 16, 16> other;
      load_transposed(other, tile, row, 16 * d);
      mma_pair(sum.at[2 * d], sum.at[2 * d + 1], weights, other);
    }
  }
}

/// Where a strip's rows go: a head of a tensor.
template <class T>
struct Target {
  T* data;
  std::int64_t stride;
  int rows, width;  // rows there are from data on
};

// Elements (row, column) and (row, column + 1).
template <class T, int kWidth>
TESSERA_DEVICE void store_two(const Target<T>& to, int row, int column, float x, float y) {
  T* at = to.data + row * to.stride + column;
  if (row < to.rows && column < to.width) {
    stg(at, static_cast<T>(x));
  }
  if (row < to.rows && column + 1 < to.width) {
    stg(at + 1, static_cast<T>(y));
  }
}

// Stores the strip times a factor for each of the lane's two rows; a quad of lanes writes whole
// sectors where rows are aligned.
template <int kWidth>
TESSERA_DEVICE void store_strip(const Sum<kWidth>& sum, const float (&factor)[2],
                                const Target<float>& to) {
  const bool whole = to.width == kWidth && to.stride % 2 == 0 &&
                     reinterpret_cast<std::uintptr_t>(to.data) % sizeof(Float2) == 0;
  TESSERA_UNROLL
  for (int e = 0; e < kWidth / 2; e += 2) {
    const int half = e / 2 % 2;
    const int row = acc_row(2 * half);
    const int column = 8 * (e / 4) + acc_column(0);
    const float x = sum.at[e / 4].c[2 * half] * factor[half];
    const float y = sum.at[e / 4].c[2 * half + 1] * factor[half];
    if (!whole) {
      store_two<float, kWidth>(to, row, column, x, y);
    } else if (row < to.rows) {
      stg(reinterpret_cast<Float2*>(to.data + row * to.stride + column), Float2{x, y});
    }
  }
}

// bf16: lanes exchange words, so that each has 8 bytes of one of two accumulators.
template <int kWidth>
TESSERA_DEVICE void store_strip(const Sum<kWidth>& sum, const float (&factor)[2],
                                const Target<bf16>& to) {
  const bool whole = kWidth >= 16 && to.width == kWidth && to.stride % 4 == 0 &&
                     reinterpret_cast<std::uintptr_t>(to.data) % sizeof(Words2) == 0;
  TESSERA_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = acc_row(2 * half);
    if (!whole) {
      TESSERA_UNROLL
      for (int m = 0; m < kWidth / 8; ++m) {
        store_two<bf16, kWidth>(to, row, 8 * m + acc_column(0),
                                sum.at[m].c[2 * half] * factor[half],
                                sum.at[m].c[2 * half + 1] * factor[half]);
      }
      continue;
    }
    const bool odd = lane() % 2 != 0;
    TESSERA_UNROLL
    for (int m = 0; m + 1 < kWidth / 8; m += 2) {
      std::uint32_t word[2];
      TESSERA_UNROLL
      for (int i = 0; i < 2; ++i) {
        word[i] = pack_bf16x2(sum.at[m + i].c[2 * half] * factor[half],
                              sum.at[m + i].c[2 * half + 1] * factor[half]);
      }
      const std::uint32_t other = shfl_xor(odd ? word[0] : word[1], 1);
      const Words2 mine = odd ? Words2{{other, word[1]}} : Words2{{word[0], other}};
      const int column = 8 * m + (odd ? 8 : 0) + lane() % 4 / 2 * 4;
      if (row < to.rows) {
        stg(reinterpret_cast<Words2*>(to.data + row * to.stride + column), mine);
      }
    }
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
