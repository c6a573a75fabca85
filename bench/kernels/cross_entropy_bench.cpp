#include "bench/support/random.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace tessera {
namespace {

void BM_linear_cross_entropy(benchmark::State& state) {
  const std::int64_t t = 5000, v = state.range(0), d = state.range(1);
  Tensor h = bench::random({t, d}), w = bench::random({v, d}), b = bench::random({v});
  h.set_requires_grad(true);
  w.set_requires_grad(true);
  std::vector<std::int32_t> y;
  for (std::int64_t i = 0; i < t; ++i) {
    y.push_back(static_cast<std::int32_t>(7 * i % v));
  }
  const Tensor targets = Tensor::from(y, {t});
  for (auto _ : state) {
    backward(linear_cross_entropy(h, w, b, targets));
  }
  bench::rate(state, "GFLOP/s", 6.0 * static_cast<double>(t * v * d));
}
BENCHMARK(BM_linear_cross_entropy)->Args({514, 64})->Args({8194, 256})->UseRealTime();

}  // namespace
}  // namespace tessera
