// Layer norm at the widths of the models: bytes per second of x and y (forward), x, dy and dx
// (backward).
#include "kernels/layernorm/layernorm.h"

#include <benchmark/benchmark.h>

#include "core/parallel.h"

namespace tessera {
namespace {

struct Buffers {
  Buffers(std::int64_t t, std::int64_t d)
      : x(Tensor::full({t, d}, 0.5F)),
        dy(Tensor::full({t, d}, 0.25F)),
        y(Tensor::zeros({t, d})),
        dx(Tensor::zeros({t, d})),
        weight(Tensor::full({d}, 1)),
        bias(Tensor::zeros({d})),
        mean(Tensor::zeros({t})),
        rstd(Tensor::zeros({t})),
        partials(Tensor::zeros({2, chunk_count(t, kLayerNormBlock), d})) {}
  Tensor x, dy, y, dx, weight, bias, mean, rstd, partials;
};

void BM_layernorm_forward(benchmark::State& state) {
  const Buffers b(state.range(0), state.range(1));
  for (auto _ : state) {
    cpu::layernorm_forward(b.x.view<const float, 2>(), b.weight.view<const float, 1>(),
                           b.bias.view<const float, 1>(), 1e-5F, b.y.view<float, 2>(),
                           b.mean.view<float, 1>(), b.rstd.view<float, 1>(), Stream{});
  }
  state.SetBytesProcessed(state.iterations() * b.x.size() * 8);
}

void BM_layernorm_backward(benchmark::State& state) {
  const Buffers b(state.range(0), state.range(1));
  for (auto _ : state) {
    cpu::layernorm_backward(b.dy.view<const float, 2>(), b.x.view<const float, 2>(),
                            b.weight.view<const float, 1>(), b.mean.view<const float, 1>(),
                            b.rstd.view<const float, 1>(), b.dx.view<float, 2>(),
                            b.partials.view<float, 3>(), Stream{});
    cpu::layernorm_reduce(b.partials.view<const float, 3>(), b.weight.view<float, 1>(),
                          b.bias.view<float, 1>(), Stream{});
  }
  state.SetBytesProcessed(state.iterations() * b.x.size() * 12);
}

BENCHMARK(BM_layernorm_forward)->ArgNames({"T", "D"})->Args({5000, 128})->Args({51200, 256});
BENCHMARK(BM_layernorm_backward)->ArgNames({"T", "D"})->Args({5000, 128})->Args({51200, 256});

}  // namespace
}  // namespace tessera

BENCHMARK_MAIN();
