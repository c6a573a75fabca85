// Sums over the rows of a matrix, whole vectors of columns at a time. Re-included once per SIMD
// target.
#if defined(TESSERA_MATMUL_COLUMNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_MATMUL_COLUMNS_INL_H_
#undef TESSERA_MATMUL_COLUMNS_INL_H_
#else
#define TESSERA_MATMUL_COLUMNS_INL_H_
#endif

#include "core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::tile::HWY_NAMESPACE {
using namespace simd::HWY_NAMESPACE;  // NOLINT: the helpers of this target

// Sums of kVectors vectors of columns. Every fourth row goes to the same chain: shorter chains
// round less and hide the latency of the additions.
template <int kVectors>
HWY_INLINE void AddColumns(const float* x, std::int64_t stride, std::int64_t rows,
                           std::int64_t valid, float* sum) {
  constexpr int kChains = 4;
  const std::int64_t lanes = LaneCount();
  V total[kChains][kVectors];
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      total[c][v] = hn::Zero(D());
    }
  }
  std::int64_t r = 0;
  for (; r + kChains <= rows; r += kChains) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const float* at = x + (r + c) * stride + v * lanes;
        total[c][v] = hn::Add(total[c][v], LoadN(valid - v * lanes, at));
      }
    }
  }
  for (; r < rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      total[0][v] = hn::Add(total[0][v], LoadN(valid - v * lanes, x + r * stride + v * lanes));
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const V all = hn::Add(hn::Add(total[0][v], total[1][v]), hn::Add(total[2][v], total[3][v]));
    StoreN(all, valid - v * lanes, sum + v * lanes);
  }
}

inline void AddRows(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n, float* sum) {
  const std::int64_t lanes = LaneCount();
  std::int64_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes) {
    AddColumns<2>(x + j, stride, rows, 2 * lanes, sum + j);
  }
  for (; j < n; j += lanes) {
    AddColumns<1>(x + j, stride, rows, n - j, sum + j);
  }
}

}  // namespace tessera::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
