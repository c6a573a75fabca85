// Attention of jets of one length and of mixed lengths, forward and backward kernels by themselves.
// "ns/head" is the time of one segment and head; operations are 4 L^2 D forward, 10 L^2 D backward.
#include "bench/support/random.h"
#include "kernels/attention/attention.h"

namespace tessera {
namespace {

struct Problem {
  Problem(const std::vector<std::int32_t>& lengths, std::int64_t heads, std::int64_t width)
      : segments(Segments::from_lengths(lengths)),
        qkv(bench::random({segments.total(), 3, heads, width})),
        out(bench::random({segments.total(), heads, width})),
        gradient(bench::random({segments.total(), 3, heads, width})),
        pair_offsets{0} {
    for (int j = 0; j < segments.count(); ++j) {
      const std::int64_t length = segments.length(j);
      pair_offsets.push_back(pair_offsets.back() + length * length);
    }
    layout = {.heads = heads,
              .width = width,
              .q_stride = 3 * heads * width,
              .kv_stride = 3 * heads * width,
              .scale = 0.25F,
              .q_offsets = segments.cu_seqlens().data(),
              .kv_offsets = segments.cu_seqlens().data(),
              .causal = nullptr,
              .segments = segments.count(),
              .pair_offsets = pair_offsets.data()};
  }

  StepArena arena;
  ArenaScope scope{arena};
  Segments segments;
  Tensor qkv, out, gradient;
  std::vector<std::int64_t> pair_offsets;
  AttentionLayout layout;
};

void run(benchmark::State& state, Problem& p, bool backward) {
  const AttentionLayout& l = p.layout;
  const std::int64_t row = l.heads * l.width;
  const float* q = p.qkv.span<float>().data();
  float *out = p.out.span<float>().data(), *dq = p.gradient.span<float>().data();
  for (auto _ : state) {
    if (backward) {
      cpu::attention_backward(q, q + row, q + 2 * row, out, l, dq, dq + row, dq + 2 * row, nullptr,
                              Stream{});
    } else {
      cpu::attention_forward(q, q + row, q + 2 * row, l, out, Stream{});
    }
  }
  const auto pairs = static_cast<double>(p.pair_offsets.back());
  bench::rate(state, "GFLOP/s", (backward ? 10.0 : 4.0) * pairs * static_cast<double>(row));
  state.counters["ns/head"] = benchmark::Counter(
      1e-9 * static_cast<double>(l.segments * l.heads),
      benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

// Arguments: length, width of a head. About 3000 tokens, 4 heads.
void BM_attention_jets(benchmark::State& state, bool backward) {
  const auto length = static_cast<std::int32_t>(state.range(0));
  Problem p(std::vector<std::int32_t>(static_cast<std::size_t>(1 + 3000 / length), length), 4,
            state.range(1));
  run(state, p, backward);
}
void lengths(benchmark::internal::Benchmark* b) {
  b->ArgNames({"L", "D"})->UseRealTime();
  for (const int length : {1, 4, 16, 30, 50, 64, 100, 128, 1000}) {
    for (const int width : {16, 32}) {
      b->Args({length, width});
    }
  }
  b->Args({50, 8})->Args({50, 24})->Args({50, 64});
}
BENCHMARK_CAPTURE(BM_attention_jets, forward, false)->Apply(lengths);
BENCHMARK_CAPTURE(BM_attention_jets, backward, true)->Apply(lengths);

// Jets of 30 to 128 particles, 8 heads.
void BM_attention_mixed(benchmark::State& state, bool backward) {
  Problem p(bench::jet_lengths(64), 8, state.range(0));
  run(state, p, backward);
}
BENCHMARK_CAPTURE(BM_attention_mixed, forward, false)
    ->Arg(8)
    ->Arg(16)
    ->Arg(32)
    ->Arg(64)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_attention_mixed, backward, true)
    ->Arg(8)
    ->Arg(16)
    ->Arg(32)
    ->Arg(64)
    ->UseRealTime();

}  // namespace
}  // namespace tessera
