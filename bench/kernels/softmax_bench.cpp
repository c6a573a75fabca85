#include "bench/support/random.h"
#include "kernels/softmax/softmax.h"

namespace tessera {
namespace {

void BM_softmax(benchmark::State& state) {
  const std::int64_t t = 5000, c = state.range(0);
  const Tensor x = bench::random({t, c});
  for (auto _ : state) {
    benchmark::DoNotOptimize(softmax(x));
  }
  bench::rate(state, "GB/s", 8.0 * static_cast<double>(t * c));
}
BENCHMARK(BM_softmax)->Arg(10)->Arg(256)->UseRealTime();

}  // namespace
}  // namespace tessera
