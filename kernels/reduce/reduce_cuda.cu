// A block adds 16,384 elements: thread t elements t, t + 1024, ..., then the warps by halves. The
// order depends on the size only. Traffic: each element once.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"
#include "kernels/reduce/reduce_types.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 1024;

struct SumSmem {
  float part[32];
};

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    sum_kernel(View<const float, 1> x, View<float, 1> out) {
  TESSERA_SMEM(SumSmem, s);
  const std::int64_t begin = block_idx().x * kSumBlock;
  float total = 0;
  for (int i = linear_thread(); i < kSumBlock; i += kThreads) {
    total += begin + i < x.shape[0] ? ldg(x.data + begin + i) : 0.0F;
  }
  total = sum_over_warp(total);
  if (lane() == 0) {
    s.part[warp()] = total;
  }
  sync_block();
  if (warp() == 0) {
    total = sum_over_warp(s.part[lane()]);
    if (lane() == 0) {
      stg(out.data + block_idx().x, total);
    }
  }
}

}  // namespace

void reduce_blocks(View<const float, 1> x, View<float, 1> out, Stream stream) {
  if (out.shape[0] > 0) {
    launch(sum_kernel,
           {"reduce_blocks",
            {static_cast<unsigned>(out.shape[0])},
            {kThreads},
            sizeof(SumSmem),
            stream},
           x, out);
  }
}

void reduce_sum(View<const float, 1> x, View<float, 1> out, Stream stream) {
  launch(sum_kernel, {"reduce_sum", {1}, {kThreads}, sizeof(SumSmem), stream}, x, out);
}

}  // namespace tessera::TESSERA_GPU_NS
