// Vector quantisation: nearest code, distance and argmin fused, so rows x codes is never stored.
// Canonical score, the same bits on every device: s = -h_k, then s = fma(x_d, e_d, s) for d
// ascending; the largest wins, ties to the smallest index, a NaN row gives index 0. A thread owns a
// row; the block streams tiles of 16 codes by 32 dimensions through shared memory. fp32 FFMA bound:
// N K D fma.
#include "core/gpu/prim.cuh"
#include "core/kernel.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kRows = 128;  // one thread each
constexpr int kCodes = 16;
constexpr int kDims = 32;

struct NearestSmem {
  float x[kRows][kDims + 1];  // a thread walks its row: odd stride, no bank conflict
  float code[kDims][kCodes];  // read by all threads at once: broadcast
  float half_norm[kCodes];
};

// Copies dimensions [begin, begin + count) of the block's rows and of 16 codes; absent ones become
// zero.
TESSERA_DEVICE void load_rows(NearestSmem& s, View<const float, 2> x, std::int64_t first_row,
                              int begin, int count) {
  for (int i = linear_thread(); i < kRows * count; i += kRows) {
    const int r = i / count;
    const int c = i % count;
    s.x[r][c] = first_row + r < x.shape[0] ? ldg(x.row(first_row + r) + begin + c) : 0.0F;
  }
}

// The codebook comes transposed, (D, K): neighbouring threads read neighbouring codes.
TESSERA_DEVICE void load_codes(NearestSmem& s, View<const float, 2> codes_t,
                               std::int64_t first_code, int begin, int count) {
  for (int i = linear_thread(); i < kCodes * count; i += kRows) {
    const int c = i / kCodes;
    const int k = i % kCodes;
    const bool there = first_code + k < codes_t.shape[1];
    s.code[c][k] = there ? ldg(codes_t.row(begin + c) + first_code + k) : 0.0F;
  }
}

TESSERA_GLOBAL void __launch_bounds__(kRows)
    nearest_kernel(View<const float, 2> x, View<const float, 2> codes_t,
                   View<const float, 1> half_norms, View<std::int32_t, 1> codes) {
  TESSERA_SMEM(NearestSmem, s);
  const int t = linear_thread();
  const std::int64_t first_row = static_cast<std::int64_t>(block_idx().x) * kRows;
  const int dims = static_cast<int>(x.shape[1]);
  const std::int64_t code_count = codes_t.shape[1];
  float best = -3.0e38F;  // a row with no score above, a NaN row too, keeps index 0
  std::int32_t winner = 0;
  for (std::int64_t k0 = 0; k0 < code_count; k0 += kCodes) {
    const int here = code_count - k0 < kCodes ? static_cast<int>(code_count - k0) : kCodes;
    if (t < kCodes) {
      s.half_norm[t] = t < here ? ldg(half_norms.data + k0 + t) : 0.0F;
    }
    float score[kCodes];
    for (int d0 = 0; d0 < dims; d0 += kDims) {
      const int count = dims - d0 < kDims ? dims - d0 : kDims;
      if (k0 == 0 || dims > kDims) {
        load_rows(s, x, first_row, d0, count);
      }
      load_codes(s, codes_t, k0, d0, count);
      sync_block();
      if (d0 == 0) {
        TESSERA_UNROLL
        for (int k = 0; k < kCodes; ++k) {
          score[k] = -s.half_norm[k];
        }
      }
      for (int d = 0; d < count; ++d) {
        const float v = s.x[t][d];
        TESSERA_UNROLL
        for (int k = 0; k < kCodes; ++k) {
          score[k] = fma(v, s.code[d][k], score[k]);
        }
      }
      sync_block();  // the tiles may be overwritten now
    }
    TESSERA_UNROLL
    for (int k = 0; k < kCodes; ++k) {
      if (k < here && score[k] > best) {  // strict: ties keep the smaller index
        best = score[k];
        winner = static_cast<std::int32_t>(k0 + k);
      }
    }
  }
  if (first_row + t < x.shape[0]) {
    stg(codes.data + first_row + t, winner);
  }
}

}  // namespace

void vq_nearest(View<const float, 2> x, View<const float, 2> codes_t,
                View<const float, 1> half_norms, View<std::int32_t, 1> codes, Stream stream) {
  if (x.shape[0] == 0) {
    return;
  }
  const LaunchConfig config{"vq_nearest",
                            {static_cast<unsigned>((x.shape[0] + kRows - 1) / kRows)},
                            {kRows},
                            sizeof(NearestSmem),
                            stream};
  launch(nearest_kernel, config, x, codes_t, half_norms, codes);
}

}  // namespace tessera::TESSERA_GPU_NS
