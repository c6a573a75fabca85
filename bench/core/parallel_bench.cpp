// What a parallel_for costs beside its body: fork and join of one empty chunk a thread, and the
// same some microseconds after the last, as between two ops of a step.
#include "core/parallel.h"

#include <benchmark/benchmark.h>

#include <chrono>

namespace tessera {
namespace {

void wait(std::chrono::microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

// Argument: microseconds between the calls, which are not counted.
void BM_fork_join(benchmark::State& state) {
  const std::chrono::microseconds gap{state.range(0)};
  for (auto _ : state) {
    wait(gap);
    const auto start = std::chrono::steady_clock::now();
    parallel_for(num_threads(), [](std::int64_t) {});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    state.SetIterationTime(seconds.count());
  }
}
BENCHMARK(BM_fork_join)->Arg(0)->Arg(5)->Arg(100)->UseManualTime();

// Work of 20 us a thread: what is left of the second thread.
void BM_short_work(benchmark::State& state) {
  for (auto _ : state) {
    parallel_for(2 * num_threads(), [](std::int64_t) { wait(std::chrono::microseconds{10}); });
  }
}
BENCHMARK(BM_short_work)->UseRealTime();

}  // namespace
}  // namespace tessera
