#include "kernels/sample/sample.h"

#include "bench/support/random.h"

namespace tessera {
namespace {

void BM_sample(benchmark::State& state, const SampleOptions& options) {
  const std::int64_t rows = 64, classes = 8194;
  const Tensor x = bench::random({rows, classes});
  const Tensor u = Tensor::full({rows}, 0.5F);
  for (auto _ : state) {
    benchmark::DoNotOptimize(sample(x, options, u));
  }
  bench::rate(state, "GB/s", 4.0 * static_cast<double>(rows * classes));
}
BENCHMARK_CAPTURE(BM_sample, plain, SampleOptions{})->UseRealTime();
BENCHMARK_CAPTURE(BM_sample, top_p, SampleOptions{.top_p = 0.9F})->UseRealTime();

}  // namespace
}  // namespace tessera
