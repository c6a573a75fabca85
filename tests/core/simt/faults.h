// Kernels with one planted fault each, and their corrected twins. Run on simt only.
#pragma once

#include "core/device.h"
#include "core/view.h"

namespace tessera {

enum class Fault {
  missing_block_barrier,
  missing_warp_sync,
  divergent_barrier,
  early_return,
  wrong_mask,
  exited_lane,
  divergent_shuffle,
  shared_overflow,
  global_past_end,
  red_zone_write,
  unwritten_shared,
  unwritten_global,
  two_blocks_one_word,
  host_pointer,
  misaligned_load,
  plain_global_write,
  named_barrier_count,
  wrong_smem_bytes,
  missing_async_wait,
  wrong_async_wait,
  divergent_mma,
  ldmatrix_off_by_one,
  missing_release,
  missing_acquire,
  unset_ticket,
  early_async_refill,
  divergent_ldmatrix,
  misaligned_ldmatrix,
  mixed_mma,
};

namespace simt {

/// Runs the kernel of the fault on n = 64 elements of x and y: y[i] = 2 x[i] or a like value. The
/// word behind y is a ticket that starts at 0.
void run_fault(Fault fault, bool broken, View<const float, 1> x, View<float, 1> y);

/// y[i] = sum of x over the warp of i by shuffles, block of 64 threads.
void warp_sums(View<const float, 1> x, View<float, 1> y);
/// y[i] = x[n - 1 - i] through shared memory and one barrier; any n.
void reverse(View<const float, 1> x, View<float, 1> y);
/// y[0] = number of positive x, y[1] = all, y[2] = any, y[3] = ballot of warp 0's first 8 lanes; n
/// = 64.
void votes(View<const float, 1> x, View<float, 1> y);
/// Copies n elements with the given stride between lanes: 1 is coalesced.
void strided_copy(View<const float, 1> x, View<float, 1> y, int stride);
/// total[0] += 1 by each of 4 blocks of 32 threads.
void count_threads(View<std::int32_t, 1> total);
/// Two warps hand a value over by a named barrier of 64 threads: y[i] = 2 x[i].
void named_handover(View<const float, 1> x, View<float, 1> y);

/// c (16, 8) = a (16, 16) b (16, 8) in bf16 by one warp: cp_async, ldmatrix, mma. a row-major; b
/// row-major (k, n).
void tile_product(View<const std::uint16_t, 1> a, View<const std::uint16_t, 1> b, View<float, 1> c);

}  // namespace simt
}  // namespace tessera
