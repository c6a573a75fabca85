// Random inputs for benchmarks; zeros would flatter caches and hide denormals.
#pragma once

#include <benchmark/benchmark.h>

#include "core/autograd.h"
#include "core/rng.h"

namespace tessera::bench {

inline Tensor random(const Shape& shape) {
  Rng rng(1);
  Tensor t = Tensor::empty(shape);
  for (float& x : t.span<float>()) {
    x = rng.uniform(-1, 1);
  }
  return t;
}

/// Segments of 30 to 128 tokens, the jets of the design's figures.
inline std::vector<std::int32_t> jet_lengths(int count) {
  Rng rng(2);
  std::vector<std::int32_t> lengths;
  for (int i = 0; i < count; ++i) {
    lengths.push_back(static_cast<std::int32_t>(30 + rng.below(99)));
  }
  return lengths;
}

/// Work of one iteration, printed per second in units of 1e9: flops for GFLOP/s, bytes for GB/s.
inline void rate(benchmark::State& state, const char* name, double work) {
  state.counters[name] = benchmark::Counter(1e-9 * work, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace tessera::bench
