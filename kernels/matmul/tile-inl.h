// The register tile under every product on the CPU: kRows rows of A times a panel of kVectors
// vectors of B, accumulated over K in ascending order, one multiply-add a step and element. 14 rows
// x 2 vectors on AVX-512 are 28 accumulators of 32 registers, fed by 2 loads and 14 broadcasts a
// step; 6 x 2 elsewhere. What becomes of the sums is an epilogue's affair, in registers:
//   bool Continues()                    the sums start from what Load gives, else from First
//   void First(V (&v)[kVectors])        where every row begins
//   void Load(int row, V (&v)[kVectors])
//   void Store(int row, const V (&v)[kVectors])
//   static constexpr bool kUnrolled     Store is short: expanded for each row; else called in a
//   loop
// Re-included once per SIMD target.
#if defined(TESSERA_MATMUL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_MATMUL_TILE_INL_H_
#undef TESSERA_MATMUL_TILE_INL_H_
#else
#define TESSERA_MATMUL_TILE_INL_H_
#endif

#include <utility>

#include "core/simd-inl.h"
#include "kernels/matmul/matmul.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::tile::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

#if HWY_TARGET <= HWY_AVX3
constexpr int kMaxRows = 14;
#else
constexpr int kMaxRows = 6;
#endif

/// Rows of the next tile when `left` remain (below 2^31): an even split, 15 = 8 + 7 and not 14 + 1.
HWY_INLINE std::int64_t TileRows(std::int64_t left) {
  const auto rows = static_cast<std::uint32_t>(left);  // a 64-bit division takes up to 90 cycles
  const std::uint32_t tiles = (rows + kMaxRows - 1) / kMaxRows;
  return (rows + tiles - 1) / tiles;
}

/// Where the sums begin. Every array of vectors has constant indices after unrolling, or it would
/// live in memory.
template <int kRows, int kVectors, class Epilogue>
HWY_INLINE void BeginSums(const Epilogue& out, V (&sum)[kRows][kVectors]) {
  if (out.Continues()) {
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      out.Load(r, sum[r]);
    }
    return;
  }
  out.First(sum[0]);
#pragma GCC unroll 14
  for (int r = 1; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      sum[r][j] = sum[0][j];
    }
  }
}

/// Hands the sums over, row by row: from registers, or through memory where Store is long.
template <int kRows, int kVectors, class Epilogue>
HWY_INLINE void EndSums(const V (&sum)[kRows][kVectors], const Epilogue& out) {
  if constexpr (Epilogue::kUnrolled) {
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      out.Store(r, sum[r]);
    }
  } else {
    const std::int64_t lanes = LaneCount();
    HWY_ALIGN float spilled[kRows * kVectors * hn::MaxLanes(D())];
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) {
        hn::Store(sum[r][j], D(), spilled + (r * kVectors + j) * lanes);
      }
    }
#pragma GCC unroll 1
    for (int r = 0; r < kRows; ++r) {
      V v[kVectors];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) {
        v[j] = hn::Load(D(), spilled + (r * kVectors + j) * lanes);
      }
      out.Store(r, v);
    }
  }
}

/// How the tile finds element (r, i) of A: any strides; each row a run; or packed, [k][kRows].
enum class Layout { strided, rows, packed };

/// Steps of K between two moves of the pointers. A step of 28 multiply-adds has no more than two
/// free places for integer sums, which share the ports of the multiply-adds on Intel's cores:
/// moving all pointers at each step cost 4 % of the roof.
template <Layout kLayout>
constexpr int kUnroll = kLayout == Layout::strided ? 1 : 4;

/// The rows of A on the way through K.
template <int kRows, Layout kLayout>
struct Walk {
  // Every third row has a pointer of its own, the two after it are one and two strides away: all
  // addresses stay in registers, where 14 offsets would not.
  const float* at[5];
  std::int64_t row, step;

  explicit HWY_INLINE Walk(const Operand& a)
      : at{a.data, a.data + 3 * a.row, a.data + 6 * a.row, a.data + 9 * a.row, a.data + 12 * a.row},
        row(a.row),
        step(kLayout == Layout::rows ? 1 : a.col) {}
  /// Element (r, i + u), r and u known to the compiler.
  HWY_INLINE V At(int r, int u) const {
    return kLayout == Layout::packed ? hn::Set(D(), at[0][u * kRows + r])
                                     : hn::Set(D(), at[r / 3][r % 3 * row + u * step]);
  }
  HWY_INLINE void Advance(int steps) {
    if (kLayout == Layout::packed) {
      at[0] += steps * kRows;
      return;
    }
#pragma GCC unroll 5
    for (int p = 0; p < 5; ++p) {
      at[p] += steps * step;
    }
  }
};

/// sum += the next kSteps steps of K.
template <int kSteps, int kRows, int kVectors, Layout kLayout>
HWY_INLINE void AddSteps(Walk<kRows, kLayout>& a, const float* HWY_RESTRICT& b, std::int64_t ldb,
                         V (&sum)[kRows][kVectors]) {
#pragma GCC unroll 4
  for (int u = 0; u < kSteps; ++u) {
    V panel[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      panel[j] = hn::LoadU(D(), b + j * LaneCount());
    }
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const V x = a.At(r, u);
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) {
        sum[r][j] = hn::MulAdd(x, panel[j], sum[r][j]);
      }
    }
    b += ldb;
  }
  a.Advance(kSteps);
}

/// b: row i of the panel at b + i * ldb, whole vectors.
template <int kRows, int kVectors, Layout kLayout, class Epilogue>
HWY_NOINLINE void Tile(const Operand& a, const float* HWY_RESTRICT b, std::int64_t ldb,
                       std::int64_t k, const Epilogue& epilogue) {
  const Epilogue out = epilogue;  // a copy: no store of floats can change it
  constexpr int kSteps = kUnroll<kLayout>;
  V sum[kRows][kVectors];
  BeginSums(out, sum);
  Walk<kRows, kLayout> walk(a);
  std::int64_t i = 0;
  for (; i + kSteps <= k; i += kSteps) {
    AddSteps<kSteps>(walk, b, ldb, sum);
  }
  for (; i < k; ++i) {
    AddSteps<1>(walk, b, ldb, sum);
  }
  EndSums(sum, out);
}

/// Tile for each number of rows from 1 to kMaxRows.
template <int kVectors, Layout kLayout, class Epilogue, int... kRowsLessOne>
HWY_INLINE void CallTile(std::integer_sequence<int, kRowsLessOne...>, std::int64_t rows,
                         const Operand& a, const float* b, std::int64_t ldb, std::int64_t k,
                         const Epilogue& out) {
  using Function =
      void (*)(const Operand&, const float*, std::int64_t, std::int64_t, const Epilogue&);
  static constexpr Function kTiles[] = {Tile<kRowsLessOne + 1, kVectors, kLayout, Epilogue>...};
  kTiles[rows - 1](a, b, ldb, k, out);
}

/// Tile for a number of rows known at run time, 1 to kMaxRows, and a layout that is.
template <int kVectors, Layout kLayout, class Epilogue>
HWY_INLINE void TileIn(std::int64_t rows, const Operand& a, const float* b, std::int64_t ldb,
                       std::int64_t k, const Epilogue& out) {
  CallTile<kVectors, kLayout>(std::make_integer_sequence<int, kMaxRows>(), rows, a, b, ldb, k, out);
}

/// The same for any strides.
template <int kVectors, class Epilogue>
HWY_INLINE void TileOf(std::int64_t rows, const Operand& a, const float* b, std::int64_t ldb,
                       std::int64_t k, const Epilogue& out) {
  if (a.col == 1) {
    TileIn<kVectors, Layout::rows>(rows, a, b, ldb, k, out);
  } else {
    TileIn<kVectors, Layout::strided>(rows, a, b, ldb, k, out);
  }
}

/// out[i * ld + j] = x[j * stride + i] for i < columns, j < rows: rows laid side by side for a
/// panel.
HWY_INLINE void Transpose(const float* HWY_RESTRICT x, std::int64_t stride, std::int64_t rows,
                          std::int64_t columns, std::int64_t ld, float* HWY_RESTRICT out) {
  std::int64_t whole_rows = 0, whole_columns = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Full128<float> d;
  whole_rows = rows / 4 * 4;
  whole_columns = columns / 4 * 4;
  for (std::int64_t j = 0; j < whole_rows; j += 4) {
    for (std::int64_t i = 0; i < whole_columns; i += 4) {
      const float* from = x + j * stride + i;
      const auto r0 = hn::LoadU(d, from), r1 = hn::LoadU(d, from + stride);
      const auto r2 = hn::LoadU(d, from + 2 * stride), r3 = hn::LoadU(d, from + 3 * stride);
      const auto low01 = hn::InterleaveLower(d, r0, r1), low23 = hn::InterleaveLower(d, r2, r3);
      const auto high01 = hn::InterleaveUpper(d, r0, r1), high23 = hn::InterleaveUpper(d, r2, r3);
      float* to = out + i * ld + j;
      hn::StoreU(hn::ConcatLowerLower(d, low23, low01), d, to);
      hn::StoreU(hn::ConcatUpperUpper(d, low23, low01), d, to + ld);
      hn::StoreU(hn::ConcatLowerLower(d, high23, high01), d, to + 2 * ld);
      hn::StoreU(hn::ConcatUpperUpper(d, high23, high01), d, to + 3 * ld);
    }
  }
#endif
  for (std::int64_t j = 0; j < rows; ++j) {
    for (std::int64_t i = j < whole_rows ? whole_columns : 0; i < columns; ++i) {
      out[i * ld + j] = x[j * stride + i];
    }
  }
}

}  // namespace tessera::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
