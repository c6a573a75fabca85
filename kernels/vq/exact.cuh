// The canonical score of a row and a code, and the search of all codes by it: s = -h, then s =
// fma(x_d, e_d, s) for d ascending. Scores compare as integers, since hardware flushes subnormal
// floats where it compares them.
#pragma once

#include <bit>
#include <cstdint>

#include "core/gpu/warp.cuh"
#include "kernels/vq/vq_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr std::int32_t kLost = -0x7fffffff - 1;  // below the key of every score

/// An integer in the order of the scores; NaN and what lies below every code's score lose to all.
TESSERA_DEVICE std::int32_t key_of(float score) {
  if (!(score > -3.0e38F)) {
    return kLost;
  }
  const auto bits = std::bit_cast<std::int32_t>(add(score, 0.0F));  // -0 is 0
  return bits ^ (bits >> 31 & 0x7fffffff);
}

/// The score of a key; NaN for none.
TESSERA_DEVICE float score_of(std::int32_t key) {
  return std::bit_cast<float>(key ^ (key >> 31 & 0x7fffffff));
}

/// -h, bit by bit: a minus sign would flush.
TESSERA_DEVICE float start_of(float half_norm) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(half_norm) ^ 0x80000000U);
}

/// The best code so far; 0 where there was no score.
struct Winner {
  std::int32_t key = kLost, code = 0;

  TESSERA_DEVICE void take(std::int32_t other, std::int32_t its_code) {
    if (other > key || (other == key && other != kLost && its_code < code)) {
      key = other;
      code = its_code;
    }
  }
};

constexpr int kScanThreads = 256;
constexpr int kScanRows = 8;    // of a block at a time: each code is read once for all of them
constexpr int kScanDims = 128;  // of these rows at a time

struct ScanSmem {
  alignas(16) float x[kScanDims][kScanRows];
  Winner best[kScanThreads / 32][kScanRows];
};

/// Which rows are scanned: those of a list, or all of them.
struct ScanList {
  const std::int32_t* rows;  // null: all
  const std::int32_t* count;

  TESSERA_DEVICE std::int64_t size(std::int64_t all) const {
    return rows == nullptr ? all : ldg(count);
  }
  TESSERA_DEVICE std::int64_t row(std::int64_t i) const {
    return rows == nullptr ? i : ldg(rows + i);
  }
};

// Dimensions [begin, begin + count) of rows first, first + 1, ... of the list.
TESSERA_DEVICE void load_scan_rows(ScanSmem& s, View<const float, 2> x, const ScanList& list,
                                   std::int64_t first, std::int64_t rows, int begin, int count) {
  for (int i = linear_thread(); i < kScanRows * count; i += kScanThreads) {
    const int r = i / count;
    const int d = i % count;
    s.x[d][r] = first + r < rows ? ldg(x.row(list.row(first + r)) + begin + d) : 0.0F;
  }
}

TESSERA_DEVICE void add_dimension(float (&score)[kScanRows], const float (&x)[kScanRows], float e) {
  TESSERA_UNROLL
  for (int half = 0; half < 2; ++half) {
    const Float4 v = reinterpret_cast<const Float4*>(x)[half];
    score[4 * half] = fma(v.x, e, score[4 * half]);
    score[4 * half + 1] = fma(v.y, e, score[4 * half + 1]);
    score[4 * half + 2] = fma(v.z, e, score[4 * half + 2]);
    score[4 * half + 3] = fma(v.w, e, score[4 * half + 3]);
  }
}

// The best of the block for each row, in thread r < kScanRows for row r.
TESSERA_DEVICE Winner best_of_block(ScanSmem& s, const Winner (&mine)[kScanRows]) {
  TESSERA_UNROLL
  for (int r = 0; r < kScanRows; ++r) {
    const std::int32_t key = reduce_max(mine[r].key);
    const std::int32_t code = reduce_min(mine[r].key == key ? mine[r].code : 0x7fffffff);
    if (lane() == 0) {
      s.best[warp()][r] = {key, code};
    }
  }
  sync_block();
  Winner best;
  for (int w = 0; w < kScanThreads / 32 && linear_thread() < kScanRows; ++w) {
    const Winner other = s.best[w][linear_thread()];
    best.take(other.key, other.code);
  }
  return best;
}

// A thread owns codes t, t + 256, ... for eight rows of the list at a time.
TESSERA_GLOBAL void __launch_bounds__(kScanThreads)
    scan_kernel(View<const float, 2> x, View<const float, 2> codes_t,
                View<const float, 1> half_norms, ScanList list, View<std::int32_t, 1> codes) {
  TESSERA_SMEM(ScanSmem, s);
  const std::int64_t rows = list.size(x.shape[0]);
  const int dims = static_cast<int>(x.shape[1]);
  const std::int64_t step = static_cast<std::int64_t>(grid_dim().x) * kScanRows;
  for (std::int64_t first = block_idx().x * kScanRows; first < rows; first += step) {
    Winner best[kScanRows];
    for (std::int64_t begin = 0; begin < codes_t.shape[1]; begin += kScanThreads) {
      const std::int64_t k = begin + linear_thread();
      const bool there = k < codes_t.shape[1];
      const float start = there ? start_of(ldg(half_norms.data + k)) : 0.0F;
      float score[kScanRows];
      TESSERA_UNROLL
      for (float& each : score) {
        each = start;
      }
      for (int d0 = 0; d0 < dims; d0 += kScanDims) {
        const int count = dims - d0 < kScanDims ? dims - d0 : kScanDims;
        if (begin == 0 || dims > kScanDims) {
          sync_block();  // nobody reads the rows before
          load_scan_rows(s, x, list, first, rows, d0, count);
          sync_block();
        }
        for (int d = 0; there && d < count; ++d) {
          add_dimension(score, s.x[d], ldg(codes_t.row(d0 + d) + k));
        }
      }
      TESSERA_UNROLL
      for (int r = 0; r < kScanRows; ++r) {
        best[r].take(there ? key_of(score[r]) : kLost, static_cast<std::int32_t>(k));
      }
    }
    const Winner winner = best_of_block(s, best);
    if (linear_thread() < kScanRows && first + linear_thread() < rows) {
      stg(codes.data + list.row(first + linear_thread()), winner.code);
    }
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
