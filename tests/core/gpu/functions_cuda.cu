#include "core/gpu/launch.cuh"
#include "core/gpu/warp.cuh"
#include "tests/core/gpu/functions.h"

namespace tessera::TESSERA_GPU_NS {
namespace {

TESSERA_GLOBAL void exp_kernel(View<const float, 1> x, View<float, 1> y) {
  const std::int64_t i = global_thread();
  if (i < x.shape[0]) {
    stg(y.data + i, exp(ldg(x.data + i)));
  }
}

}  // namespace

void exp_of(View<const float, 1> x, View<float, 1> y, Stream stream) {
  constexpr unsigned kThreads = 256;
  launch(exp_kernel, {"exp_of", {blocks_for(x.shape[0], kThreads)}, {kThreads}, 0, stream}, x, y);
}

}  // namespace tessera::TESSERA_GPU_NS
