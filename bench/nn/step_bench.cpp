// Whole layers and whole training steps at the sizes of OmniJet-alpha, on 64 jets of 30 to 128
// particles. bench/nn/step_peer.py runs the same in PyTorch, in turn with this program, and prints
// the ratios.
#include "bench/support/random.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "nn/models/pretraining.h"
#include "train/trainer.h"

namespace tessera {
namespace {

constexpr int kJets = 64;
constexpr std::int64_t kWidth = 256, kHeads = 8;

// Particles of jet j; step_peer.py has the same rule.
std::vector<std::int32_t> lengths() {
  std::vector<std::int32_t> n;
  for (int j = 0; j < kJets; ++j) {
    n.push_back(30 + j * 37 % 99);
  }
  return n;
}

void report(benchmark::State& state, double flops) {
  bench::rate(state, "GFLOP/s", flops);
  state.counters["jets/s"] =
      benchmark::Counter(kJets, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["threads"] = num_threads();
}

// Multiply-adds count twice; backward is twice the forward. A block of width d: 12 d^2 a token in
// its matrices, 2 d a pair of tokens in its attention, of which a causal mask leaves half.
double block_flops(const Segments& s, double attended) {
  constexpr auto d = static_cast<double>(kWidth);
  double pairs = 0;
  for (int j = 0; j < s.count(); ++j) {
    pairs += attended * s.length(j) * s.length(j);
  }
  return 3 * 2 * (12 * d * d * s.total() + 2 * d * pairs);
}

// The first step touches the memory of all later ones.
void run(benchmark::State& state, const std::function<void()>& step) {
  step();
  for (auto _ : state) {
    step();
  }
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

// Argument: threads. The generative pre-training step of OmniJet-alpha: [start, codes] to [codes,
// stop] over 8194 tokens, gradients, clipping and AdamW of 6.57 M parameters.
void BM_omnijet_step(benchmark::State& state, Precision precision) {
  if (!can_multiply(state, precision)) return;
  const PrecisionScope products(precision);
  set_num_threads(static_cast<int>(state.range(0)));
  Rng rng(1);
  const GptBackbone backbone({}, rng);
  const NextTokenHead head(kWidth, backbone.config.vocabulary, rng);
  std::vector<NamedTensor> parameters = backbone.named_parameters();
  const std::vector<NamedTensor> of_head = head.named_parameters("head.");
  parameters.insert(parameters.end(), of_head.begin(), of_head.end());
  Trainer trainer({{parameters}}, {.clip_norm = 5, .steps = 1'000'000});
  std::vector<std::int32_t> n = lengths(), ids, targets;
  for (std::int32_t& length : n) {
    length += 1;  // start
    for (std::int32_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<std::int32_t>(rng.below(8193)));
      targets.push_back(1 + static_cast<std::int32_t>(rng.below(8193)));
    }
  }
  const auto segments = Segments::from_lengths(n);
  const auto rows = static_cast<std::int64_t>(ids.size());
  const Tensor in = Tensor::from(ids, {rows}), want = Tensor::from(targets, {rows});
  run(state, [&] {
    trainer.step([&] {
      return linear_cross_entropy(backbone(in, segments), head.ntp.weight, head.ntp.bias, want);
    });
  });
  const double d = kWidth, vocabulary = static_cast<double>(backbone.config.vocabulary);
  report(state, 3 * block_flops(segments, 0.5) + 3 * 2 * d * vocabulary * segments.total());
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

}  // namespace
}  // namespace tessera
