#include "bench/support/random.h"
#include "kernels/attention/attention.h"

namespace tessera {
namespace {

void BM_attention(benchmark::State& state, bool with_backward) {
  const std::int64_t heads = 8, width = state.range(0);
  const Segments s = Segments::from_lengths(bench::jet_lengths(64));
  Tensor x = bench::random({s.total(), 3, heads, width});
  x.set_requires_grad(with_backward);
  const Tensor up = bench::random({s.total(), heads, width});
  double pairs = 0;
  for (int j = 0; j < s.count(); ++j) {
    pairs += static_cast<double>(s.length(j)) * s.length(j);
  }
  for (auto _ : state) {
    const Tensor y = attention(x, s);
    if (with_backward) {
      backward(
          differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
    }
  }
  bench::rate(state, "GFLOP/s", (with_backward ? 14.0 : 4.0) * pairs * static_cast<double>(heads * width));
}
BENCHMARK_CAPTURE(BM_attention, forward, false)->Arg(8)->Arg(16)->Arg(32)->Arg(64)->UseRealTime();
BENCHMARK_CAPTURE(BM_attention, forward_backward, true)->Arg(8)->Arg(16)->Arg(32)->Arg(64)->UseRealTime();

}  // namespace
}  // namespace tessera
