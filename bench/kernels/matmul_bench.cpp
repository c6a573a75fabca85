// The three products of a linear layer of T rows, each by itself: y = x W^T, dx = dy W, dW = dy^T
// x; then a whole layer forward and backward through the tape. Rows named bf16 have that precision
// and the roof of its unit; operands are f32 in memory, so rounding them is part of the time.
#include "bench/support/random.h"
#include "kernels/matmul/matmul.h"

namespace tessera {
namespace {

/// As in training, tensors come from the step arena: huge pages.
struct Arena {
  StepArena arena;
  ArenaScope scope{arena};
};

Operand plain(const Tensor& t) { return {t.span<const float>().data(), t.shape(1), 1}; }
Operand transposed(const Tensor& t) { return {t.span<const float>().data(), 1, t.shape(1)}; }

/// c (m, n) = a b, called as the ops call it.
void product(benchmark::State& state, Operand a, Operand b, std::int64_t m, std::int64_t n,
             std::int64_t k, Precision precision, const GemmEpilogue& epilogue = {}) {
  if (precision == Precision::bf16 && bf16_unit() == Bf16Unit::none) {
    state.SkipWithError("this CPU multiplies no bf16 (CPUID)");
    return;
  }
  const Tensor c = Tensor::empty({m, n}), panels = Tensor::empty({gemm_workspace(k, n, precision)});
  for (auto _ : state) {
    gemm_at(precision)(kCpu, a, b, c.view<float, 2>(), k, epilogue, panels.view<float, 1>(),
                       Stream{});
  }
  const double flops = 2.0 * static_cast<double>(m * n * k);
  precision == Precision::bf16 ? bench::rate_bf16(state, flops)
                               : bench::rate(state, "GFLOP/s", flops);
}

// Arguments: T, out, in.
void BM_linear_y(benchmark::State& state, Activation activation, Precision precision) {
  const Arena arena;
  const std::int64_t t = state.range(0), o = state.range(1), i = state.range(2);
  const Tensor x = bench::random({t, i}), w = bench::random({o, i}), bias = bench::random({o});
  product(state, plain(x), transposed(w), t, o, i, precision,
          {.bias = bias.span<const float>().data(), .activation = activation});
}

void BM_linear_dx(benchmark::State& state, Precision precision) {
  const Arena arena;
  const std::int64_t t = state.range(0), o = state.range(1), i = state.range(2);
  const Tensor dy = bench::random({t, o}), w = bench::random({o, i});
  product(state, plain(dy), plain(w), t, i, o, precision);
}

void BM_linear_dw(benchmark::State& state, Precision precision) {
  const Arena arena;
  const std::int64_t t = state.range(0), o = state.range(1), i = state.range(2);
  const Tensor dy = bench::random({t, o}), x = bench::random({t, i});
  product(state, transposed(dy), plain(x), o, i, t, precision);
}

// Widths of the small, the usual and the wide models.
void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"T", "O", "I"})->UseRealTime();
  for (const std::int64_t width : {32, 64, 128, 192}) {
    b->Args({2000, width, width});
  }
  for (const auto& [o, i] : {std::pair{192, 64}, {256, 64}, {64, 256}, {100, 36}}) {
    b->Args({2000, o, i});
  }
  for (const auto& [o, i] : {std::pair{256, 256}, {1024, 256}, {256, 1024}}) {
    b->Args({5000, o, i});
  }
}
BENCHMARK_CAPTURE(BM_linear_y, plain, Activation::none, Precision::f32)
    ->Apply(shapes)
    ->Args({5000, 8192, 256});
BENCHMARK_CAPTURE(BM_linear_y, bf16, Activation::none, Precision::bf16)
    ->Apply(shapes)
    ->Args({5000, 8192, 256});
BENCHMARK_CAPTURE(BM_linear_y, gelu, Activation::gelu, Precision::f32)
    ->Args({2000, 256, 64})
    ->Args({5000, 1024, 256})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_linear_y, gelu_bf16, Activation::gelu, Precision::bf16)
    ->Args({2000, 256, 64})
    ->Args({5000, 1024, 256})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_linear_dx, f32, Precision::f32)->Apply(shapes);
BENCHMARK_CAPTURE(BM_linear_dx, bf16, Precision::bf16)->Apply(shapes);
BENCHMARK_CAPTURE(BM_linear_dw, f32, Precision::f32)->Apply(shapes)->Args({5000, 8192, 256});
BENCHMARK_CAPTURE(BM_linear_dw, bf16, Precision::bf16)->Apply(shapes)->Args({5000, 8192, 256});

void BM_linear_forward_backward(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  Tensor x = bench::random({m, k}), w = bench::random({n, k}), b = bench::random({n});
  x.set_requires_grad(true);
  w.set_requires_grad(true);
  const Tensor up = bench::random({m, n});
  for (auto _ : state) {
    const Tensor y = linear(x, w, b, Activation::gelu);
    backward(differentiable(Tensor::scalar(0), {y},
                            [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
  }
  bench::rate(state, "GFLOP/s", 6.0 * static_cast<double>(m * n * k));
}
BENCHMARK(BM_linear_forward_backward)
    ->Args({2000, 64, 64})
    ->Args({2000, 256, 64})
    ->Args({5000, 256, 256})
    ->Args({5000, 1024, 256})
    ->UseRealTime();

}  // namespace
}  // namespace tessera
