#include "bench/support/random.h"
#include "kernels/vq/vq.h"

namespace tessera {
namespace {

void BM_vq_assign(benchmark::State& state) {
  const std::int64_t t = 5000, k = state.range(0), d = state.range(1);
  const Tensor z = bench::random({t, d}), e = bench::random({k, d});
  for (auto _ : state) {
    benchmark::DoNotOptimize(vq_assign(z, e));
  }
  bench::rate(state, "GFLOP/s", 2.0 * static_cast<double>(t * k * d));
}
BENCHMARK(BM_vq_assign)->Args({512, 4})->Args({8192, 4})->Args({8192, 8})->Args({8192, 32})->UseRealTime();

}  // namespace
}  // namespace tessera
