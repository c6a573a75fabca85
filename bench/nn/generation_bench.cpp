// Jets and tokens a second with cached keys and values, against recomputation of the whole prefix
// at each step as the public notebooks do. The peer draws other jets (fixed uniforms); it runs its rows
// through the full backbone and takes the last one of each jet.
#include "nn/models/generation.h"

#include <numeric>

#include "bench/support/random.h"
#include "kernels/gather/gather.h"
#include "kernels/sample/sample.h"
#include "nn/models/packing.h"

namespace tessera {
namespace {

const GptConfig kTiny{.vocabulary = 514, .width = 64, .blocks = 2, .heads = 4};
const GptConfig kOmniJetAlpha{};

/// A GPT that never stops before the limit: random weights would stop anywhere.
struct Gpt {
  Rng rng{1};
  GptBackbone backbone;
  NextTokenHead head;
  explicit Gpt(const GptConfig& c) : backbone(c, rng), head(c.width, c.vocabulary, rng) {
    fill(head.ntp.bias.slice(0, c.vocabulary - 1, c.vocabulary), -100.0F);
  }
};

std::vector<std::uint64_t> uids(std::int64_t n) {
  std::vector<std::uint64_t> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 1);
  return all;
}

void report(benchmark::State& state, std::int64_t jets, std::int64_t tokens) {
  const auto flag = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["jets/s"] = benchmark::Counter(static_cast<double>(jets), flag);
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(tokens), flag);
  state.counters["threads"] = num_threads();
}

void BM_generate_cached(benchmark::State& state, const GptConfig& config) {
  const std::int64_t slots = state.range(0), limit = state.range(1), jets = slots;
  const Gpt gpt(config);
  const auto ids = uids(jets);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        generate(gpt.backbone, gpt.head, ids, {.max_particles = limit, .slots = slots}));
  }
  report(state, jets, jets * (limit + 1));
}

// One step of the recomputing engine: every prefix anew, the head on last rows only.
std::vector<std::int32_t> recompute_step(const Gpt& gpt,
                                         const std::vector<std::vector<std::int32_t>>& prefixes,
                                         const SampleOptions& rule) {
  std::vector<std::int32_t> ids, offsets{0}, last;
  for (const auto& prefix : prefixes) {
    ids.insert(ids.end(), prefix.begin(), prefix.end());
    offsets.push_back(static_cast<std::int32_t>(ids.size()));
    last.push_back(offsets.back() - 1);
  }
  const Tensor h = gpt.backbone(RowPacker::vector_tensor(ids), Segments(offsets));
  const Tensor logits = gpt.head.ntp(gather_rows(h, RowPacker::vector_tensor(last)));
  const Tensor u = Tensor::full({static_cast<std::int64_t>(prefixes.size())}, 0.5F);
  return sample(logits, rule, u).to_vector<std::int32_t>();
}

void BM_generate_recomputed(benchmark::State& state, const GptConfig& config) {
  const std::int64_t jets = state.range(0), limit = state.range(1);
  const Gpt gpt(config);
  const NoGrad off;
  StepArena arena;
  for (auto _ : state) {
    std::vector<std::vector<std::int32_t>> prefixes(static_cast<std::size_t>(jets), {0});
    for (std::int64_t step = 0; step <= limit; ++step) {
      std::vector<std::int32_t> tokens;
      {
        const ArenaScope scope(arena);
        tokens = recompute_step(gpt, prefixes, {.excluded = {0}});
      }
      arena.reset();
      for (std::size_t j = 0; j < prefixes.size(); ++j) {
        prefixes[j].push_back(tokens[j]);
      }
    }
  }
  report(state, jets, jets * (limit + 1));
}

BENCHMARK_CAPTURE(BM_generate_cached, tiny, kTiny)
    ->ArgsProduct({{16, 64, 256}, {32}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_generate_recomputed, tiny, kTiny)
    ->Args({64, 32})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
// 45 particles is a typical jet, 128 the limit of the published model.
BENCHMARK_CAPTURE(BM_generate_cached, omnijet_alpha, kOmniJetAlpha)
    ->ArgsProduct({{16, 64, 256}, {45}})
    ->Args({64, 128})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_generate_recomputed, omnijet_alpha, kOmniJetAlpha)
    ->Args({64, 45})
    ->Args({64, 128})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace tessera
