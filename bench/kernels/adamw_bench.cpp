#include "bench/support/random.h"
#include "kernels/adamw/adamw.h"

namespace tessera {
namespace {

// 28 bytes a parameter: p, m, v read and written, g read.
void BM_adamw(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  const Tensor p = bench::random({n}), g = bench::random({n}), m = Tensor::zeros({n}), v = Tensor::zeros({n});
  const AdamWSpan all[] = {{.begin = 0, .end = n}};
  for (auto _ : state) {
    adamw_step(p, g, m, v, all, {.clip_norm = 1});
  }
  bench::rate(state, "GB/s", 28.0 * static_cast<double>(n));
}
BENCHMARK(BM_adamw)->Arg(200000)->Arg(6570498)->UseRealTime();

}  // namespace
}  // namespace tessera
