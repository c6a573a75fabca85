#include "bench/support/random.h"
#include "kernels/losses/losses.h"

namespace tessera {
namespace {

void BM_losses(benchmark::State& state) {
  const std::int64_t t = 5000, d = state.range(0);
  const Tensor x = bench::random({t, d}), y = bench::random({t, d});
  for (auto _ : state) {
    benchmark::DoNotOptimize(squared_error(x, y));
  }
  bench::rate(state, "GB/s", 16.0 * static_cast<double>(t * d));
}
BENCHMARK(BM_losses)->Arg(64)->Arg(256)->UseRealTime();

}  // namespace
}  // namespace tessera
