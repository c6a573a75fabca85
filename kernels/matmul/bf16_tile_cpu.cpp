// Products of bf16 on the CPU: the only file compiled for AVX512-BF16 and AMX, entered after CPUID
// named them. Operands come in f32 and are rounded on the way to where they are read in order. A
// step is 32 of K, in two forms of 16 vectors each:
//   lines: a vector holds the 32 elements of one line (row of A, column of B),
//   pairs: a vector holds, for 16 lines, the pair of elements (2p, 2p + 1).
// An operand whose lines are contiguous is loaded as lines, one whose lines lie side by side as
// pairs; a transpose of 16 x 16 words makes the other. A is stored as lines, B as pairs: what both
// vdpbf16ps and the tile registers read.
#include "kernels/matmul/bf16_tile.h"

#if defined(__AVX512BF16__) && defined(__AMX_BF16__)

#include <immintrin.h>

namespace tessera::cpu::bf16_tile {
namespace {

constexpr int kLines = 16;

// Mask of the first min(left, 16) lanes; none of them where left <= 0.
inline __mmask16 head(std::int64_t left) {
  return left >= 16  ? static_cast<__mmask16>(0xffffU)
         : left <= 0 ? static_cast<__mmask16>(0)
                     : static_cast<__mmask16>((1U << static_cast<unsigned>(left)) - 1U);
}

// bf16 of `low` in the lower half, of `high` in the upper.
inline __m512i round_two(__m512 high, __m512 low) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// The first `count` elements of up to 16 lines along k.
inline void load_lines(const float* at, std::int64_t stride, std::int64_t lines, std::int64_t count,
                       __m512i (&v)[kLines]) {
  const __mmask16 first = head(count), second = head(count - 16);
  for (int i = 0; i < kLines; ++i) {
    v[i] = _mm512_setzero_si512();
    if (i < lines) {
      const float* line = at + i * stride;
      v[i] =
          round_two(_mm512_maskz_loadu_ps(second, line + 16), _mm512_maskz_loadu_ps(first, line));
    }
  }
}

// The same where neighbouring lines are side by side and elements `stride` apart.
inline void load_pairs(const float* at, std::int64_t stride, std::int64_t lines, std::int64_t count,
                       __m512i (&v)[kLines]) {
  const __mmask16 there = head(lines);
  // words 0, 16, 1, 17, ...: the halves of each pair next to each other
  const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                       23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (int p = 0; p < kLines; ++p) {
    const float* even = at + 2 * p * stride;
    const __m512 low = _mm512_maskz_loadu_ps(2 * p < count ? there : head(0), even);
    const __m512 high = _mm512_maskz_loadu_ps(2 * p + 1 < count ? there : head(0), even + stride);
    v[p] = _mm512_permutexvar_epi16(zip, round_two(high, low));
  }
}

// Rows and columns of 16 x 16 words change places: first within quarters of four lanes, then the
// quarters.
inline void transpose(__m512i (&v)[kLines]) {
  __m512i w[kLines];
#pragma GCC unroll 16
  for (int i = 0; i < kLines; i += 2) {
    w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLines; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(w[i + j], w[i + j + 2]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(w[i + j], w[i + j + 2]);
    }
  }
  // quarter q of v[i + j]: rows i .. i + 3 of column 4 q + j
#pragma GCC unroll 2
  for (int i = 0; i < kLines; i += 8) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      w[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0x88);
      w[i + j + 4] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0xdd);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    v[j] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0x88);
    v[j + 8] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0xdd);
  }
}

/// Lines of an operand: rows of A, columns of B.
struct Lines {
  const float* at;
  std::int64_t outer, inner;  ///< floats from line to line, and along k
  std::int64_t count, depth;  ///< what is there
};

// Up to 16 lines of one step as lines or as pairs, zero where nothing is there.
template <bool kPairs>
inline void load_step(const Lines& from, __m512i (&v)[kLines]) {
  if (from.inner == 1) {
    load_lines(from.at, from.outer, from.count, from.depth, v);
  } else if (from.outer == 1) {
    load_pairs(from.at, from.inner, from.count, from.depth, v);
  } else {
    float copy[kLines * kDepth];
    for (std::int64_t i = 0; i < kLines; ++i) {
      for (std::int64_t k = 0; k < kDepth; ++k) {
        const bool there = i < from.count && k < from.depth;
        copy[i * kDepth + k] = there ? from.at[i * from.outer + k * from.inner] : 0.0F;
      }
    }
    load_lines(copy, kDepth, kLines, kDepth, v);
  }
  const bool pairs = from.inner != 1 && from.outer == 1;
  if (pairs != kPairs) {
    transpose(v);
  }
}

// Rows of the next strip when `left` remain: an even split of 14, 15 = 8 + 7; tiles take 32.
inline std::int64_t strip_rows(std::int64_t left, bool tiles) {
  if (tiles) {
    return left < kTileRows ? left : kTileRows;
  }
  const std::int64_t strips = (left + kDotRows - 1) / kDotRows;
  return (left + strips - 1) / strips;
}

// Rows of the strip in memory: whole tiles.
inline std::int64_t stored_rows(std::int64_t rows, bool tiles) {
  return tiles ? (rows + kLines - 1) / kLines * kLines : rows;
}

// One step of the strip of `rows` rows at `a`, k of them left along K.
inline void pack_strip_step(Operand a, std::int64_t rows, std::int64_t stored, std::int64_t k,
                            std::uint16_t* out) {
  for (std::int64_t r = 0; r < stored; r += kLines) {
    __m512i v[kLines];
    load_step<false>({a.data + r * a.row, a.row, a.col, rows - r, k}, v);
#pragma GCC unroll 16
    for (int i = 0; i < kLines; ++i) {
      if (r + i < stored) {
        _mm512_storeu_si512(out + (r + i) * kDepth, v[i]);
      }
    }
  }
}

template <int kRows, int kVectors>
void dots(const Block& block, const std::uint16_t* strip, const std::uint16_t* panel, float* c,
          const float* bias, std::int64_t columns) {
  const __mmask16 there[2] = {head(columns), head(columns - 16)};
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      sum[r][j] = block.accumulate  ? _mm512_maskz_loadu_ps(there[j], c + r * block.ld + 16 * j)
                  : bias != nullptr ? _mm512_maskz_loadu_ps(there[j], bias + 16 * j)
                                    : _mm512_setzero_ps();
    }
  }
  for (std::int64_t pair = 0; pair < block.steps * 16; ++pair) {
    const std::uint16_t* a = strip + pair / 16 * (kRows * kDepth) + pair % 16 * 2;
    __m512bh b[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      b[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + pair * 64 + 32 * j));
    }
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      int both = 0;  // a pair of one row
      __builtin_memcpy(&both, a + r * kDepth, sizeof(both));
      const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) {
        sum[r][j] = _mm512_dpbf16_ps(sum[r][j], x, b[j]);
      }
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      _mm512_mask_storeu_ps(c + r * block.ld + 16 * j, there[j], sum[r][j]);
    }
  }
}

using Dots = void (*)(const Block&, const std::uint16_t*, const std::uint16_t*, float*,
                      const float*, std::int64_t);
template <int kVectors>
constexpr Dots kDots[] = {dots<1, kVectors>,  dots<2, kVectors>,  dots<3, kVectors>,
                          dots<4, kVectors>,  dots<5, kVectors>,  dots<6, kVectors>,
                          dots<7, kVectors>,  dots<8, kVectors>,  dots<9, kVectors>,
                          dots<10, kVectors>, dots<11, kVectors>, dots<12, kVectors>,
                          dots<13, kVectors>, dots<14, kVectors>};

// f(strip, its rows, panel, c, bias, columns) for each strip and panel of a block. A strip meets
// all panels while it is in the first cache.
template <class F>
inline void for_each_part(const Block& block, bool tiles, F f) {
  const std::uint16_t* strip = block.strips;
  for (std::int64_t row = 0; row < block.rows;) {
    const std::int64_t rows = strip_rows(block.rows - row, tiles);
    const std::uint16_t* panel = block.panels;
    for (std::int64_t column = 0; column < block.columns; column += kColumns) {
      const std::int64_t left = block.columns - column;
      f(strip, rows, panel, block.c + row * block.ld + column,
        block.bias != nullptr ? block.bias + column : nullptr, left < kColumns ? left : kColumns);
      panel += block.panel_stride;
    }
    strip += stored_rows(rows, tiles) * block.steps * kDepth;
    row += rows;
  }
}

// Tile instructions do not tell the compiler which memory they read.
inline void memory_is_written() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

/// The layout of tile registers: eight of 16 rows of 64 bytes (Intel SDM, LDTILECFG).
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Where floats of C lie, for loads and stores of tiles.
struct TilePlace {
  float* at;
  std::int64_t ld;
};

// rows x columns floats between c and an edge tile, whose rows are 32 floats apart.
inline void copy_edge(const float* from, std::int64_t from_ld, float* to, std::int64_t to_ld,
                      std::int64_t rows, std::int64_t columns) {
  const __mmask16 left = head(columns), right = head(columns - 16);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* x = from + r * from_ld;
    float* y = to + r * to_ld;
    _mm512_mask_storeu_ps(y, left, _mm512_maskz_loadu_ps(left, x));
    _mm512_mask_storeu_ps(y + 16, right, _mm512_maskz_loadu_ps(right, x + 16));
  }
}

// Sums of one or two tiles of rows (kLower) by one or two of columns (kRight). Tiles: 0..3 the
// sums, 4 and 5 of A, 6 and 7 of B. `ld` 0 reads one line for all rows.
template <bool kLower, bool kRight>
inline void tiles(const std::uint16_t* strip, const std::uint16_t* panel, std::int64_t steps,
                  TilePlace start, TilePlace end) {
  constexpr std::int64_t kStored = kLower ? 32 : 16;
  const std::int64_t from = start.ld * 4, to = end.ld * 4;
  _tile_loadd(0, start.at, from);
  if constexpr (kRight) _tile_loadd(1, start.at + 16, from);
  if constexpr (kLower) _tile_loadd(2, start.at + 16 * start.ld, from);
  if constexpr (kLower && kRight) _tile_loadd(3, start.at + 16 * start.ld + 16, from);
  for (std::int64_t step = 0; step < steps; ++step) {
    const std::uint16_t* a = strip + step * (kStored * kDepth);
    const std::uint16_t* b = panel + step * kPanelStep;
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 128);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRight) {
      _tile_loadd(7, b + 32, 128);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kLower) {
      _tile_loadd(5, a + 16 * kDepth, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kLower && kRight) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, end.at, to);
  if constexpr (kRight) _tile_stored(1, end.at + 16, to);
  if constexpr (kLower) _tile_stored(2, end.at + 16 * end.ld, to);
  if constexpr (kLower && kRight) _tile_stored(3, end.at + 16 * end.ld + 16, to);
}

// One part of C, whole tiles in place, others by way of an edge tile. The sums begin in the tile
// either way, so that bits do not depend on where a row lies.
void tile_part(const Block& block, const std::uint16_t* strip, std::int64_t rows,
               const std::uint16_t* panel, float* c, const float* bias, std::int64_t columns) {
  alignas(64) float edge[kTileRows * kColumns], line[kColumns] = {};
  const bool lower = rows > 16, right = columns > 16;
  const bool whole = rows % 16 == 0 && columns % 16 == 0;
  const TilePlace in_c{c, block.ld}, at_edge{edge, kColumns};
  TilePlace start{line, 0};
  if (block.accumulate) {
    start = whole ? in_c : at_edge;
    if (!whole) copy_edge(c, block.ld, edge, kColumns, rows, columns);
  } else if (bias != nullptr) {
    copy_edge(bias, 0, line, 0, 1, columns);
  }
  memory_is_written();
  const TilePlace end = whole ? in_c : at_edge;
  if (lower) {
    right ? tiles<true, true>(strip, panel, block.steps, start, end)
          : tiles<true, false>(strip, panel, block.steps, start, end);
  } else {
    right ? tiles<false, true>(strip, panel, block.steps, start, end)
          : tiles<false, false>(strip, panel, block.steps, start, end);
  }
  memory_is_written();
  if (!whole) copy_edge(edge, kColumns, c, block.ld, rows, columns);
}

}  // namespace

void pack_panel(Operand b, std::int64_t k, std::int64_t columns, std::uint16_t* out) {
  for (std::int64_t step = 0; step < k; step += kDepth, out += kPanelStep) {
    for (std::int64_t j = 0; j < kColumns; j += kLines) {
      __m512i v[kLines];
      load_step<true>({b.data + step * b.row + j * b.col, b.col, b.row, columns - j, k - step}, v);
#pragma GCC unroll 16
      for (int p = 0; p < kLines; ++p) {
        _mm512_storeu_si512(out + p * 64 + j * 2, v[p]);
      }
    }
  }
}

// An operand whose rows lie side by side is walked along its rows, step by step; any other strip by
// strip.
void pack_strips(Operand a, std::int64_t rows, std::int64_t k, bool tiles, std::uint16_t* out) {
  const std::int64_t steps = whole_steps(k), at_once = a.row == 1 && a.col != 1 ? 1 : steps;
  for (std::int64_t begin = 0; begin < steps; begin += at_once) {
    std::uint16_t* strip = out;
    for (std::int64_t row = 0; row < rows;) {
      const std::int64_t n = strip_rows(rows - row, tiles), stored = stored_rows(n, tiles);
      for (std::int64_t step = begin; step < begin + at_once; ++step) {
        pack_strip_step({a.data + row * a.row + step * kDepth * a.col, a.row, a.col}, n, stored,
                        k - step * kDepth, strip + step * stored * kDepth);
      }
      strip += stored * steps * kDepth;
      row += n;
    }
  }
}

void multiply_dots(const Block& block) {
  for_each_part(block, false,
                [&](const std::uint16_t* strip, std::int64_t rows, const std::uint16_t* panel,
                    float* c, const float* bias, std::int64_t columns) {
                  (columns > 16 ? kDots<2> : kDots<1>)[rows - 1](block, strip, panel, c, bias,
                                                                 columns);
                });
}

void multiply_tiles(const Block& block) {
  const TileShapes shapes;
  memory_is_written();
  _tile_loadconfig(&shapes);
  for_each_part(block, true,
                [&](const std::uint16_t* strip, std::int64_t rows, const std::uint16_t* panel,
                    float* c, const float* bias, std::int64_t columns) {
                  tile_part(block, strip, rows, panel, c, bias, columns);
                });
  _tile_release();
}

}  // namespace tessera::cpu::bf16_tile

#else  // a compiler or processor without the unit: check_precision refuses before these

namespace tessera::cpu::bf16_tile {
void pack_panel(Operand, std::int64_t, std::int64_t, std::uint16_t*) {}
void pack_strips(Operand, std::int64_t, std::int64_t, bool, std::uint16_t*) {}
void multiply_dots(const Block&) {}
void multiply_tiles(const Block&) {}
}  // namespace tessera::cpu::bf16_tile

#endif
