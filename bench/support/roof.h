// Roofs of this machine, measured in the process of the benchmark: multiply-adds per second on one
// core and bytes copied per second. A share of them can be compared between machines and days.
#pragma once

namespace tessera::bench {

/// GFLOP/s of one thread: independent multiply-adds in registers at the widest SIMD level of this
/// machine, best of several runs. Measured at the first call.
double fma_roof();

/// GFLOP/s of one thread in bf16 products with f32 sums, operands in registers, on the unit that
/// bf16_unit() names; 0 without one.
double bf16_roof();

/// GB/s of one thread, read plus write, copying 20 MB; best of several runs. Measured at the first
/// call.
double copy_roof();

}  // namespace tessera::bench
