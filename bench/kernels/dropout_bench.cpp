#include "bench/support/random.h"
#include "kernels/dropout/dropout.h"

namespace tessera {
namespace {

void BM_dropout(benchmark::State& state) {
  const std::int64_t t = 5000, d = state.range(0);
  const Tensor x = bench::random({t, d});
  for (auto _ : state) {
    benchmark::DoNotOptimize(dropout(x, 0.1F, RngKey{1, 2}));
  }
  bench::rate(state, "GB/s", 8.0 * static_cast<double>(t * d));
}
BENCHMARK(BM_dropout)->Arg(64)->Arg(256)->UseRealTime();

}  // namespace
}  // namespace tessera
