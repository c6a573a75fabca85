// Kernels that run without a stray access and are wrong all the same: their faults show in results,
// counters or the order of streams. Each has a corrected twin. Run on simt only.
#pragma once

#include "core/device.h"
#include "core/view.h"

namespace tessera::simt {

/// y[i] = the sum of the warp's x; broken: of half the warp, by a wrong shuffle width.
void warp_sum(bool broken, View<const float, 1> x, View<float, 1> y);
/// y[j] = mean of the values of jet j, rows offsets[j] .. offsets[j + 1] of x, in tiles of 16 rows.
/// broken: the last tile's mask is dropped.
void masked_mean(bool broken, View<const float, 1> x, View<const std::int32_t, 1> offsets,
                 View<float, 1> y);
/// y[j] = sum of jet j by one warp that walks the jets; broken: the accumulator is not cleared.
void jet_sums(bool broken, View<const float, 1> x, View<const std::int32_t, 1> offsets,
              View<float, 1> y);
/// total[0] = sum of x by the last of its blocks of 32; broken: the ticket is not put back.
void last_block_sum(bool broken, View<const float, 1> x, View<float, 1> partials,
                    View<std::uint32_t, 1> ticket, View<float, 1> total);
/// total[0] = sum of x, one block; broken: in the order in which the threads draw slots.
void slot_sum(bool broken, View<const float, 1> x, View<float, 1> slots,
              View<std::uint32_t, 1> ticket, View<float, 1> total);
/// y = factor x, queued on the stream.
void scale(float factor, View<const float, 1> x, View<float, 1> y, Stream stream);
/// y (32, 32) = x^T through shared memory with rows of 33 words; broken: of 32.
void transpose(bool broken, View<const float, 1> x, View<float, 1> y);
/// y[stride i] = x[i], n = 32.
void spread(int stride, View<const float, 1> x, View<float, 1> y);
/// One warp runs `repeats` mma_m16n8k16 and as many ex2 a lane.
void tensor_work(int repeats, View<float, 1> y);

}  // namespace tessera::simt
