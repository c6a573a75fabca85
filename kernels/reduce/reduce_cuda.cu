// One block adds everything: the sums of a step are losses of a batch. Thread t adds elements t,
// t + 1024, ... in runs of 16, then runs, then warps by halves: the order depends on the size only.
#include "core/gpu/warp.cuh"
#include "core/kernel.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

constexpr int kThreads = 1024;

struct SumSmem {
  float part[32];
};

TESSERA_GLOBAL void __launch_bounds__(kThreads)
    sum_kernel(View<const float, 1> x, View<float, 1> out) {
  TESSERA_SMEM(SumSmem, s);
  float total = 0;
  for (std::int64_t begin = linear_thread(); begin < x.shape[0]; begin += 16 * kThreads) {
    float run = 0;
    for (int i = 0; i < 16; ++i) {
      const std::int64_t at = begin + i * kThreads;
      run += at < x.shape[0] ? ldg(x.data + at) : 0.0F;
    }
    total += run;
  }
  total = sum_over_warp(total);
  if (lane() == 0) {
    s.part[warp()] = total;
  }
  sync_block();
  if (warp() == 0) {
    total = sum_over_warp(s.part[lane()]);
    if (lane() == 0) {
      stg(out.data, total);
    }
  }
}

}  // namespace

void reduce_sum(View<const float, 1> x, View<float, 1> out, Stream stream) {
  launch(sum_kernel, {"reduce_sum", {1}, {kThreads}, sizeof(SumSmem), stream}, x, out);
}

}  // namespace tessera::TESSERA_GPU_NS
