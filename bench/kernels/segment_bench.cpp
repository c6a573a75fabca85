#include "bench/support/random.h"
#include "kernels/segment/segment.h"

namespace tessera {
namespace {

void BM_segment(benchmark::State& state) {
  const std::int64_t t = 5000, d = state.range(0);
  const Tensor x = bench::random({t, d});
  const Segments s({0, 1000, 1030, 5000});
  for (auto _ : state) {
    benchmark::DoNotOptimize(segment_pool(x, s, Pool::mean));
  }
  bench::rate(state, "GB/s", 4.0 * static_cast<double>(t * d));
}
BENCHMARK(BM_segment)->Arg(64)->Arg(256)->UseRealTime();

}  // namespace
}  // namespace tessera
