// Every primitive of core/gpu/prim.cuh in a kernel of one warp, for comparison with a plain
// reference. Run on simt only.
#pragma once

#include "core/device.h"
#include "core/view.h"

namespace tessera {

enum class Prim {
  shfl_xor_8,
  shfl_down_16,
  shfl_up_4,
  shfl_idx_8,
  ballot,
  any,
  all,
  reduce_add,
  reduce_min,
  reduce_max,
  match_any,
  atomic_add,
  atomic_add_signed,
  atomic_max,
  atomic_min,
  atomic_exchange,
  atomic_cas,
  cp_async_4,
  cp_async_8,
  cp_async_16,
  ldmatrix_x1,
  ldmatrix_x2,
  ldmatrix_x4,
  ldmatrix_x2_trans,
  ldmatrix_x4_trans,
  pack_bf16x2,
  fma,
  add,
  ex2,
  lg2,
  rsqrt,
  rcp,
  max,
  min,
};

/// Shapes and types of mma.
enum class Tile { m16n8k16_bf16, m16n8k16_f16, m16n8k8_bf16, m16n8k8_tf32 };

namespace simt {

/// Lane l runs the primitive on word l of x (32 words; 128 for copies and matrices) and leaves its
/// registers at y[4 l ..]; atomics work on y[128].
void run_prim(Prim prim, View<const std::uint32_t, 1> x, View<std::uint32_t, 1> y);

/// d = a b + c by one mma of a warp in the shapes of the PTX ISA. a (16, k), b (k, 8): one f32 word
/// an element; c, d (16, 8).
void run_mma_tile(Tile tile, View<const float, 1> a, View<const float, 1> b, View<const float, 1> c,
                  View<float, 1> d);

/// A 64-bit counter grows by each thread's index: 2 blocks of 32.
void count_wide(View<std::uint64_t, 1> total);

/// Block 1 waits for nothing: it reads the flag that block 0 releases behind its value, and copies
/// the value if the flag is up. y[0] = flag seen, y[1] = value or 0.
void hand_over(View<float, 1> value, View<std::uint32_t, 1> flag, View<float, 1> y);

}  // namespace simt
}  // namespace tessera
