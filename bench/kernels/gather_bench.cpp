#include "bench/support/random.h"
#include "kernels/gather/gather.h"

namespace tessera {
namespace {

void BM_gather(benchmark::State& state) {
  const std::int64_t t = 5000, d = state.range(0);
  const Tensor x = bench::random({t, d});
  std::vector<std::int32_t> index;
  for (std::int64_t i = 0; i < t; ++i) {
    index.push_back(static_cast<std::int32_t>(4999 - i));
  }
  const Tensor rows = Tensor::from(index, {t});
  for (auto _ : state) {
    benchmark::DoNotOptimize(gather_rows(x, rows));
  }
  bench::rate(state, "GB/s", 8.0 * static_cast<double>(t * d));
}
BENCHMARK(BM_gather)->Arg(64)->Arg(256)->UseRealTime();

}  // namespace
}  // namespace tessera
