#include "bench/support/random.h"
#include "kernels/matmul/matmul.h"

namespace tessera {
namespace {

void BM_linear_forward(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const Tensor x = bench::random({m, k}), w = bench::random({n, k}), b = bench::random({n});
  for (auto _ : state) {
    benchmark::DoNotOptimize(linear(x, w, b));
  }
  bench::rate(state, "GFLOP/s", 2.0 * static_cast<double>(m * n * k));
}
BENCHMARK(BM_linear_forward)
    ->Args({224, 224, 224})
    ->Args({5000, 256, 256})
    ->Args({5000, 1024, 256})
    ->Args({5000, 256, 1024})
    ->Args({5000, 8192, 256})
    ->Args({2000, 64, 64})
    ->UseRealTime();

void BM_linear_forward_backward(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  Tensor x = bench::random({m, k}), w = bench::random({n, k}), b = bench::random({n});
  x.set_requires_grad(true);
  w.set_requires_grad(true);
  const Tensor up = bench::random({m, n});
  for (auto _ : state) {
    const Tensor y = linear(x, w, b, Activation::gelu);
    backward(differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
  }
  bench::rate(state, "GFLOP/s", 6.0 * static_cast<double>(m * n * k));
}
BENCHMARK(BM_linear_forward_backward)->Args({5000, 256, 256})->Args({5000, 1024, 256})->UseRealTime();

}  // namespace
}  // namespace tessera
