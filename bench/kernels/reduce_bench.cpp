#include "bench/support/random.h"
#include "kernels/reduce/reduce.h"

namespace tessera {
namespace {

void BM_reduce(benchmark::State& state) {
  const std::int64_t t = 5000, d = state.range(0);
  const Tensor x = bench::random({t, d});
  for (auto _ : state) {
    benchmark::DoNotOptimize(sum(x));
  }
  bench::rate(state, "GB/s", 4.0 * static_cast<double>(t * d));
}
BENCHMARK(BM_reduce)->Arg(64)->Arg(256)->UseRealTime();

}  // namespace
}  // namespace tessera
