// Whole training steps on a GPU, kernel by kernel and as one CUDA graph; step_peer.py --cuda runs
// the same in PyTorch.
//   gpu_steps [DEVICE]
// DEVICE: cuda, or cpu to see that the program runs. Without the device it says so and ends.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/nn/omnijet_step.h"
#include "core/stream_scope.h"
#include "kernels/matmul/precision.h"

namespace tessera::bench {
namespace {

constexpr int kRuns = 21;

// Median milliseconds of a step of which the host waits for its loss, and the nodes of its graph.
struct Measured {
  double milliseconds = 0;
  std::size_t nodes = 0;
};

Measured measure(Device device, Precision precision, bool graphs) {
  const PrecisionScope products(precision);
  setenv("TESSERA_GRAPH", graphs ? "on" : "off", 1);
  const StreamScope stream(device);
  OmnijetStep step(device);
  for (int i = 0; i < 3; ++i) {
    step();
  }
  std::vector<double> times;
  for (int i = 0; i < kRuns; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    step();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
            .count());
  }
  std::ranges::nth_element(times, times.begin() + kRuns / 2);
  return {times[kRuns / 2], step.graphs().nodes};
}

void run(Device device) {
  fmt::print("\nTraining step of OmniJet-alpha, {} jets of 30 to 128 particles; medians of {}\n",
             kJets, kRuns);
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const char* name = precision == Precision::f32 ? "f32" : "bf16";
    const Measured direct = measure(device, precision, false),
                   graph = measure(device, precision, true);
    fmt::print("Tessera {:<6} kernel by kernel {:8.3f} ms, as a graph of {} nodes {:8.3f} ms\n",
               name, direct.milliseconds, graph.nodes, graph.milliseconds);
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  const std::string asked = argc > 1 ? argv[1] : "cuda";
  const auto all = tessera::devices();
  const auto found =
      std::ranges::find_if(all, [&](tessera::Device d) { return asked == tessera::name(d.type); });
  if (found == all.end()) {
    fmt::print("steps: skipped, no {} device at hand\n", asked);
    return 0;
  }
  tessera::bench::run(*found);  // an error ends the program, and the test of the table with it
}
