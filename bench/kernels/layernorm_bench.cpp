// Layer norm at the widths of the models: bytes per second of x and y (forward), x, dy and dx
// (backward).
#include "kernels/layernorm/layernorm.h"

#include <benchmark/benchmark.h>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/storage.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/reduce/reduce.h"

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
    cpu::layernorm_forward(b.x.view<const float, 2>(), {}, b.weight.view<const float, 1>(),
                           b.bias.view<const float, 1>(), 1e-5F, b.y.view<float, 2>(),
                           b.mean.view<float, 1>(), b.rstd.view<float, 1>(), Stream{});
  }
  state.SetBytesProcessed(state.iterations() * b.x.size() * 8);
}

void BM_layernorm_backward(benchmark::State& state) {
  const Buffers b(state.range(0), state.range(1));
  for (auto _ : state) {
    cpu::layernorm_backward(b.dy.view<const float, 2>(), {}, b.x.view<const float, 2>(),
                            b.weight.view<const float, 1>(), b.mean.view<const float, 1>(),
                            b.rstd.view<const float, 1>(), b.dx.view<float, 2>(),
                            b.partials.view<float, 3>(), Stream{});
    cpu::layernorm_reduce(b.partials.view<const float, 3>(), b.weight.view<float, 1>(),
                          b.bias.view<float, 1>(), Stream{});
  }
  state.SetBytesProcessed(state.iterations() * b.x.size() * 12);
}

// A residual, its norm and the backward of both, in one op or two.
void BM_residual(benchmark::State& state, bool fused) {
  const Shape shape{state.range(0), state.range(1)};
  std::vector<Tensor> leaves{Tensor::full(shape, 0.5F), Tensor::full(shape, 0.25F)};
  for (Tensor& leaf : leaves) {
    leaf.set_requires_grad(true);
    leaf.set_grad(Tensor::zeros(shape));
  }
  const Tensor weight = Tensor::full({shape[1]}, 1), bias = Tensor::zeros({shape[1]});
  StepArena arena;
  for (auto _ : state) {
    {
      const ArenaScope scope(arena);
      NormedSum out;
      if (fused) {
        out = add_layer_norm(leaves[0], leaves[1], weight, bias);
      } else {
        out.sum = add(leaves[0], leaves[1]);
        out.normed = layer_norm(out.sum, weight, bias);
      }
      backward(mean(add(out.sum, out.normed)));
    }
    arena.reset();
  }
}

BENCHMARK_CAPTURE(BM_residual, fused, true)->Args({5000, 128})->Args({51200, 256});
BENCHMARK_CAPTURE(BM_residual, apart, false)->Args({5000, 128})->Args({51200, 256});
BENCHMARK(BM_layernorm_forward)->ArgNames({"T", "D"})->Args({5000, 128})->Args({51200, 256});
BENCHMARK(BM_layernorm_backward)->ArgNames({"T", "D"})->Args({5000, 128})->Args({51200, 256});

}  // namespace
}  // namespace tessera

BENCHMARK_MAIN();
