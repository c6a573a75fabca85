// Kernels whose every instruction is known, for the counters of a launch. Run on simt only.
#pragma once

#include "core/device.h"
#include "core/view.h"

namespace tessera::simt {

/// Each of `blocks` blocks of 64 reads all of x `passes` times; y[block] = the sum of the first
/// pass.
void read_again(int blocks, int passes, View<const float, 1> x, View<float, 1> y);
/// One warp: y[lane] += 1, `passes` times, through global memory.
void in_place(int passes, View<float, 1> y);
/// One warp; a lane runs n of each: 1 lg2, 2 rsqrt, 3 rcp, 4 max, 5 min, 6 fma, 7 ex2.
void arithmetic(int n, View<float, 1> y);
/// One warp runs n m16n8k16 of bf16, 2 n of f16, 3 n m16n8k8 of bf16 and 4 n of tf32.
void tensor_shapes(int n, View<float, 1> y);
/// One warp copies 32 x 16 bytes of x into shared memory, odd lanes half of it, and out again.
void copy_in(View<const float, 1> x, View<float, 1> y);

}  // namespace tessera::simt
