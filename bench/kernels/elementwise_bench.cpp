#include "bench/support/random.h"
#include "kernels/elementwise/elementwise.h"

namespace tessera {
namespace {

void BM_elementwise(benchmark::State& state) {
  const std::int64_t t = 5000, d = state.range(0);
  const Tensor a = bench::random({t, d}), b = bench::random({t, d});
  for (auto _ : state) {
    benchmark::DoNotOptimize(add(a, b));
  }
  bench::rate(state, "GB/s", 12.0 * static_cast<double>(t * d));
}
BENCHMARK(BM_elementwise)->Arg(64)->Arg(256)->UseRealTime();

}  // namespace
}  // namespace tessera
