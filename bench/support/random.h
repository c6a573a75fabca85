// Random inputs for benchmarks; zeros would flatter caches and hide denormals.
#pragma once

#include <benchmark/benchmark.h>

#include <string_view>

#include "bench/support/roof.h"
#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "kernels/matmul/precision.h"

namespace tessera::bench {

inline Tensor random(const Shape& shape) {
  static std::uint64_t seed = 0;
  Rng rng(++seed);  // equal inputs would be correlated: a product of a tensor with itself
  Tensor t = Tensor::empty(shape);
  for (float& x : t.span<float>()) {
    x = rng.uniform(-1, 1);
  }
  return t;
}

/// Segments of 30 to 128 tokens, as jets have them.
inline std::vector<std::int32_t> jet_lengths(int count) {
  Rng rng(2);
  std::vector<std::int32_t> lengths;
  for (int i = 0; i < count; ++i) {
    lengths.push_back(static_cast<std::int32_t>(30 + rng.below(99)));
  }
  return lengths;
}

/// Work of one iteration, printed per second in units of 1e9: flops for "GFLOP/s", bytes for
/// "GB/s"; and its percentage of the multiply-add roof of all threads, or of one thread's copy
/// roof.
inline void rate(benchmark::State& state, const char* name, double work) {
  const auto flag = benchmark::Counter::kIsIterationInvariantRate;
  const double roof = std::string_view(name) == "GB/s" ? copy_roof() : fma_roof() * num_threads();
  state.counters[name] = benchmark::Counter(1e-9 * work, flag);
  state.counters["roof"] = roof;
  state.counters["%roof"] = benchmark::Counter(1e-7 * work / roof, flag);
}

/// The same for products in bf16, against the roof of bf16_unit().
inline void rate_bf16(benchmark::State& state, double flops) {
  const auto flag = benchmark::Counter::kIsIterationInvariantRate;
  const double roof = bf16_roof() * num_threads();
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * flops, flag);
  state.counters["roof"] = roof;
  state.counters["%roof"] = benchmark::Counter(1e-7 * flops / roof, flag);
  state.SetLabel(name(bf16_unit()));
}

}  // namespace tessera::bench
