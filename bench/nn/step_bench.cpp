// Whole layers and whole training steps at the sizes of OmniJet-alpha, on 64 jets of 30 to 128
// particles. bench/nn/step_peer.py runs the same in PyTorch, in turn with this program, and prints
// the ratios.
#include <sys/resource.h>

#include <chrono>
#include <cmath>

#include "bench/nn/omnijet_step.h"
#include "bench/support/random.h"

namespace tessera {
namespace {

using bench::block_flops, bench::lengths, bench::OmnijetStep;
using bench::kHeads, bench::kJets, bench::kWidth;

void report(benchmark::State& state, double flops) {
  bench::rate(state, "GFLOP/s", flops);
  state.counters["jets/s"] =
      benchmark::Counter(kJets, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["threads"] = num_threads();
}

std::int64_t page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// The first step touches the memory of all later ones; what these touch anew is counted.
void run(benchmark::State& state, const std::function<void()>& step) {
  step();
  step();
  const std::int64_t before = page_faults();
  for (auto _ : state) {
    step();
  }
  state.counters["faults/step"] = benchmark::Counter(static_cast<double>(page_faults() - before),
                                                     benchmark::Counter::kAvgIterations);
}

// Whether a benchmark at this precision can run here; reports it where not.
bool can_multiply(benchmark::State& state, Precision precision) {
  const bool can = precision == Precision::f32 || bf16_unit() != Bf16Unit::none;
  if (!can) {
    state.SkipWithError("this CPU multiplies no bf16 (CPUID)");
  }
  return can;
}

// Arguments: threads, dropout in per cent. One post-norm encoder layer, forward and backward.
void BM_encoder_layer(benchmark::State& state, Precision precision) {
  if (!can_multiply(state, precision)) return;
  const PrecisionScope products(precision);
  set_num_threads(static_cast<int>(state.range(0)));
  Rng rng(1);
  const PostNormBlock block(kWidth, kHeads, rng, static_cast<float>(state.range(1)) / 100);
  const auto segments = Segments::from_lengths(lengths());
  const Tensor x = bench::random({segments.total(), kWidth}).set_requires_grad(true);
  const Tensor upstream = bench::random({segments.total(), kWidth});
  StepArena arena;
  const auto step = [&] {
    {
      const ArenaScope scope(arena);
      const Tensor y = block(x, segments, {}, rng);
      backward(differentiable(Tensor::scalar(0), {y}, [&](std::span<const Tensor>) {
        return std::vector<Tensor>{upstream};
      }));
    }
    for (const auto& [name, p] : block.named_parameters()) {
      p.set_grad({});
    }
    x.set_grad({});
    arena.reset();
  };
  run(state, step);
  report(state, block_flops(segments, 1));
}
BENCHMARK_CAPTURE(BM_encoder_layer, f32, Precision::f32)
    ->ArgNames({"threads", "dropout"})
    ->ArgsProduct({{1, 2}, {0, 10}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_encoder_layer, bf16, Precision::bf16)
    ->ArgNames({"threads", "dropout"})
    ->ArgsProduct({{1, 2}, {0, 10}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// Argument: threads.
void BM_omnijet_step(benchmark::State& state, Precision precision) {
  if (!can_multiply(state, precision)) return;
  const PrecisionScope products(precision);
  set_num_threads(static_cast<int>(state.range(0)));
  OmnijetStep step;
  run(state, [&] { step(); });
  report(state, step.flops());
}
BENCHMARK_CAPTURE(BM_omnijet_step, f32, Precision::f32)
    ->ArgName("threads")
    ->Arg(1)
    ->Arg(2)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_omnijet_step, bf16, Precision::bf16)
    ->ArgName("threads")
    ->Arg(1)
    ->Arg(2)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// Seconds of the fastest of three steps; one before them meets the new threads of the pool.
double fastest(OmnijetStep& step, int threads) {
  using Clock = std::chrono::steady_clock;
  set_num_threads(threads);
  step();
  double best = INFINITY;
  for (int i = 0; i < 3; ++i) {
    const auto start = Clock::now();
    step();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

// The step by one thread and by two in turn, so that what else runs on the machine meets both.
// "1T/2T": the fastest by one thread over the fastest by two, of all iterations.
void BM_omnijet_scaling(benchmark::State& state) {
  OmnijetStep step;
  double one = INFINITY, two = INFINITY;
  for (auto _ : state) {
    one = std::min(one, fastest(step, 1));
    two = std::min(two, fastest(step, 2));
  }
  state.counters["1T ms"] = 1e3 * one;
  state.counters["2T ms"] = 1e3 * two;
  state.counters["1T/2T"] = one / two;
}
BENCHMARK(BM_omnijet_scaling)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(5);

}  // namespace
}  // namespace tessera
