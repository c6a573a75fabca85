// What several kernels share above the primitives: warp sums, launch sizes, exponential, logarithm.
#pragma once

#include "core/gpu/prim.cuh"

namespace tessera::TESSERA_GPU_NS {

/// The sum over the warp in every lane, by halves: one order.
TESSERA_DEVICE float sum_over_warp(float v) {
  for (int step = 16; step > 0; step /= 2) {
    v += shfl_xor(v, step);
  }
  return v;
}

/// The largest value of the warp in every lane; NaN loses.
TESSERA_DEVICE float max_over_warp(float v) {
  for (int step = 16; step > 0; step /= 2) {
    v = max(v, shfl_xor(v, step));
  }
  return v;
}

/// Position of this thread in a one-dimensional grid.
TESSERA_DEVICE std::int64_t global_thread() {
  return static_cast<std::int64_t>(block_idx().x) * block_dim().x + thread_idx().x;
}

/// Row and column of element i of a matrix of d columns. A 32-bit division takes a fifth of the
/// instructions of a 64-bit one, which would set the time of a kernel that moves 8 bytes an
/// element.
struct MatrixPlace {
  std::int64_t row, column;
};
TESSERA_DEVICE MatrixPlace matrix_place(std::int64_t i, std::int64_t d) {
  if ((static_cast<std::uint64_t>(i | d) >> 32U) == 0) {
    const auto i32 = static_cast<std::uint32_t>(i);
    const auto d32 = static_cast<std::uint32_t>(d);
    return {i32 / d32, i32 % d32};
  }
  return {i / d, i % d};
}

/// exp(x) to 2 ulp beside what ex2 is off by (2 ulp on a GPU): ex2 of x log2 e, whose rounding
/// error is put back to first order. 0 below -87.3, near ln of the smallest normal number; infinite
/// above 88.72283. The largest x stands for those: further up the correction of an infinite power
/// may be negative, and the sum a NaN.
TESSERA_DEVICE float exp(float x) {
  if (x < -87.3F) {
    return 0.0F;
  }
  const float bounded = x > 88.72283F ? 88.723F : x;
  const float high = bounded * 1.44269502F;
  const float low = fma(bounded, 1.44269502F, -high) + bounded * 1.92596299e-8F;
  const float power = ex2(high);
  return fma(power, low * 0.693147182F, power);
}

TESSERA_DEVICE float log(float x) { return lg2(x) * 0.693147182F; }

/// sqrt(x) for x >= 0; subnormal x gives 0.
TESSERA_DEVICE float sqrt(float x) { return x < 1.18e-38F ? 0.0F : x * rsqrt(x); }

/// ceil(n / per_block), a grid.
inline unsigned blocks_for(std::int64_t n, std::int64_t per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

}  // namespace tessera::TESSERA_GPU_NS
