// Batch norm over the pairs of ParT: 256 jets of 16 particles are 34,816 pairs with 64 channels.
#include "bench/support/random.h"
#include "kernels/batchnorm/batchnorm.h"

namespace tessera {
namespace {

void BM_batchnorm_forward(benchmark::State& state) {
  const std::int64_t n = 34816, c = state.range(0);
  const Tensor x = bench::random({n, c}), weight = bench::random({c}), bias = bench::random({c});
  for (auto _ : state) {
    benchmark::DoNotOptimize(batch_norm(x, weight, bias).y);
  }
  bench::rate(state, "GB/s", 16.0 * static_cast<double>(n * c));  // x three times, y once
}
BENCHMARK(BM_batchnorm_forward)->ArgName("C")->Arg(4)->Arg(64)->UseRealTime();

void BM_batchnorm_backward(benchmark::State& state) {
  const std::int64_t n = 34816, c = state.range(0);
  Tensor x = bench::random({n, c}).set_requires_grad(true);
  const Tensor weight = bench::random({c}), bias = bench::random({c}), dy = bench::random({n, c});
  for (auto _ : state) {
    state.PauseTiming();
    const Tensor y = batch_norm(x, weight, bias).y;
    const Tensor loss = differentiable(
        Tensor::scalar(0), {y}, [&](std::span<const Tensor>) { return std::vector<Tensor>{dy}; });
    x.set_grad({});
    state.ResumeTiming();
    backward(loss);
  }
  bench::rate(state, "GB/s", 20.0 * static_cast<double>(n * c));  // x and dy twice, dx once
}
BENCHMARK(BM_batchnorm_backward)->ArgName("C")->Arg(4)->Arg(64)->UseRealTime();

}  // namespace
}  // namespace tessera
