// The roof of bf16 products; compiled with the flags of kernels/matmul/bf16_tile_cpu.cpp and under
// the same rule: nothing inline comes in.
#include <cstdint>

namespace tessera::bench {
double dots(std::int64_t rounds, float* sink);
double tiles(std::int64_t rounds);
}  // namespace tessera::bench

#if defined(__AVX512BF16__) && defined(__AMX_BF16__)
#include <immintrin.h>

namespace tessera::bench {

// 24 chains of vdpbf16ps; returns the floating-point operations done.
double dots(std::int64_t rounds, float* sink) {
  constexpr int kChains = 24;
  __m512 sum[kChains];
  const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f003f00));  // pairs of 0.5
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) {
    sum[i] = _mm512_set1_ps(*sink + static_cast<float>(i));  // equal chains would become one
  }
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) {
      sum[i] = _mm512_dpbf16_ps(sum[i], x, x);
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) {
    sum[0] = _mm512_add_ps(sum[0], sum[i]);
  }
  *sink = _mm512_cvtss_f32(sum[0]);
  return 2.0 * 32 * kChains * static_cast<double>(rounds);
}

// Four tiles of sums, as a product of 32 x 32 has them; the compiler drops no tile instruction.
double tiles(std::int64_t rounds) {
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shapes;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  _tile_loadconfig(&shapes);  // and all tiles are zero
  for (std::int64_t r = 0; r < rounds; ++r) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 2.0 * 4 * 16 * 16 * 32 * static_cast<double>(rounds);
}

}  // namespace tessera::bench
#else
namespace tessera::bench {
double dots(std::int64_t, float*) { return 0; }
double tiles(std::int64_t) { return 0; }
}  // namespace tessera::bench
#endif
