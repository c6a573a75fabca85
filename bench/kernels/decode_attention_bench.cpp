#include "kernels/decode_attention/decode_attention.h"

#include <numeric>

#include "bench/support/random.h"
#include "kernels/attention/attention.h"

namespace tessera {
namespace {

constexpr std::int64_t kSlots = 64, kHeads = 8, kCapacity = 129;

void BM_decode_attention(benchmark::State& state) {
  const std::int64_t width = state.range(0);
  const auto position = static_cast<std::int32_t>(state.range(1));
  const auto cache = KeyValueCache::create(kSlots, kHeads, width, kCapacity);
  fill(cache.keys, 0.1F);
  fill(cache.values, 0.1F);
  const Tensor x = bench::random({kSlots, 3, kHeads, width});
  std::vector<std::int32_t> slots(kSlots), positions(kSlots, position);
  std::iota(slots.begin(), slots.end(), 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(decode_attention(x, cache, slots, positions));
  }
  bench::rate(state, "GB/s", 8.0 * static_cast<double>(kSlots * kHeads * width * (position + 1)));
}
BENCHMARK(BM_decode_attention)->ArgsProduct({{16, 32}, {20, 45, 127}})->UseRealTime();

// Peer: the general op with one query a segment on gathered keys and values.
void BM_cross_attention(benchmark::State& state) {
  const std::int64_t width = state.range(0), keys = state.range(1) + 1;
  std::vector<std::int32_t> ones(kSlots, 1), many(kSlots, static_cast<std::int32_t>(keys));
  const Segments qs = Segments::from_lengths(ones), ks = Segments::from_lengths(many);
  const Tensor q = bench::random({kSlots, kHeads, width});
  const Tensor kv = bench::random({kSlots * keys, 2, kHeads, width});
  for (auto _ : state) {
    benchmark::DoNotOptimize(cross_attention(q, kv, qs, ks));
  }
  bench::rate(state, "GB/s", 8.0 * static_cast<double>(kSlots * kHeads * width * keys));
}
BENCHMARK(BM_cross_attention)->ArgsProduct({{16, 32}, {20, 45, 127}})->UseRealTime();

}  // namespace
}  // namespace tessera
