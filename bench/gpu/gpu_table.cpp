// One table of the device kernels: measured beside predicted, with a peer where there is one.
//   gpu_table predicted.json
// Predicted times are predicted_bench's, from counters on simt. Measured ones need a GPU; without
// one their column stays empty and the last line says so. A measured time is the median of 21 runs
// of the whole case, forward and backward, repeated as a CUDA graph where it can be recorded:
// `warm` one after the other, `cold` with the L2 cache overwritten before each. Peers are run
// alike.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "bench/gpu/cases.h"
#include "core/autograd.h"
#include "core/gpu/cuda_call.h"
#include "core/gpu/runtime.h"
#include "core/graph.h"
#include "kernels/attention/attention.h"
#include "kernels/matmul/product.h"
#include "tests/support/hardware.h"
#ifdef TESSERA_CUDNN
#include "bench/gpu/cudnn_attention.h"
#endif

namespace tessera::bench {
namespace {

constexpr Device kCuda{DeviceType::cuda, 0};
constexpr int kRuns = 21;

/// Microseconds, medians.
struct Times {
  double warm = 0, cold = 0;
  bool recorded = true;  ///< as a CUDA graph; else launch by launch
};

/// Two marks in a stream and the time between them.
class Stopwatch {
 public:
  Stopwatch() {
    TESSERA_CUDA_CALL(cudaEventCreate(&begin_));
    TESSERA_CUDA_CALL(cudaEventCreate(&end_));
  }
  ~Stopwatch() {
    static_cast<void>(cudaEventDestroy(begin_));
    static_cast<void>(cudaEventDestroy(end_));
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  double microseconds(Stream stream, const std::function<void()>& work) {
    auto* queue = static_cast<cudaStream_t>(stream.handle);
    TESSERA_CUDA_CALL(cudaEventRecord(begin_, queue));
    work();
    TESSERA_CUDA_CALL(cudaEventRecord(end_, queue));
    TESSERA_CUDA_CALL(cudaEventSynchronize(end_));
    float milliseconds = 0;
    TESSERA_CUDA_CALL(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return 1e3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

double median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  TESSERA_CUDA_CALL(cudaDeviceGetAttribute(&value, which, 0));
  return value;
}

Times measure(const std::function<void()>& work) {
  const OwnedStream stream(kCuda);
  const StreamGuard guard(stream);
  GraphQueue graph(kCuda, stream);
  Times times;
  work();  // what is made once
  try {
    graph.run(work);
  } catch (const Error&) {
    times.recorded = false;  // it reads the device
  }
  const std::function<void()> once = [&] { times.recorded ? graph.repeat() : work(); };
  const Tensor dirt = Tensor::zeros({attribute(cudaDevAttrL2CacheSize) / 2}, DType::f32, kCuda);
  Stopwatch watch;
  std::vector<double> warm, cold;
  once();
  for (int i = 0; i < kRuns; ++i) {
    warm.push_back(watch.microseconds(stream, once));
  }
  for (int i = 0; i < kRuns; ++i) {
    fill(dirt, static_cast<float>(i));  // twice the cache
    cold.push_back(watch.microseconds(stream, once));
  }
  times.warm = median(warm);
  times.cold = median(cold);
  return times;
}

/// What a case is compared with, and how long that takes.
struct Peer {
  std::string name;
  Times times;
};

/// A line of the table.
struct Line {
  std::string op, shape;
  std::map<std::string, double> predicted;  // by card
  std::optional<Times> measured;
  std::optional<Peer> peer;
};

// Predicted times of a case: the sum over its launches.
std::map<std::string, double> predicted_of(const nlohmann::json& rows, std::size_t place) {
  std::map<std::string, double> sum;
  for (const auto& row : rows) {
    if (row["case"] == place) {
      for (const Hardware& card : kCards) {
        sum[card.name] += row["predicted"][card.name]["microseconds"].get<double>();
      }
    }
  }
  return sum;
}

// Our own kernels; and for linear layers the library that the product uses.
void measure_case(const GpuCase& c, Line& line) {
  const GpuCase::Run run = c.prepare(kCuda);
  const auto work = [&] { static_cast<void>(run()); };
  const ProductLibrary library = product_library(kCuda);
  {
    const ProductLibraryScope own(kCuda, nullptr);
    line.measured = measure(work);
  }
  if (c.name == "linear" && library != nullptr) {
    line.peer = Peer{"cuBLASLt", measure(work)};
  }
}

Line line_of(std::size_t place, const nlohmann::json& rows, bool gpu) {
  const GpuCase c = gpu_cases(Size::full)[place];
  Line line{c.name, c.shape, predicted_of(rows, place), {}, {}};
  if (gpu) {
    measure_case(c, line);
  }
  return line;
}

// Forward in bf16, which cuDNN has; jets of one length, as in the cases.
Line attention_line(std::int32_t length, std::int64_t width, bool gpu) {
  constexpr int kJets = 1000, kHeads = 8;
  Line line{"attention bf16 fwd",
            fmt::format("B={} L={} H={} D={}", kJets, length, kHeads, width),
            {},
            {},
            {}};
  if (gpu) {
    const NoGrad off;
    const Segments jets = Segments::from_lengths(std::vector<std::int32_t>(kJets, length));
    const Tensor qkv = Tensor::zeros({jets.total(), 3, kHeads, width}, DType::bf16, kCuda);
    line.measured = measure([&] { static_cast<void>(attention(qkv, jets)); });
#ifdef TESSERA_CUDNN
    const Tensor out = Tensor::zeros({jets.total(), kHeads, width}, DType::bf16, kCuda);
    const CudnnAttention peer(jets, kHeads, width);
    line.peer = Peer{"cuDNN SDPA", measure([&] { peer(qkv, out); })};
#endif
  }
  return line;
}

std::string cell(const std::optional<Times>& times, double Times::*which) {
  return times ? fmt::format("{:.1f}{}", (*times).*which, times->recorded ? "" : "*") : "-";
}

void print(const Line& line, const std::string& card) {
  fmt::print("{:<20}{:<28}", line.op, line.shape);
  for (const Hardware& known : kCards) {
    const auto found = line.predicted.find(known.name);
    fmt::print("{:>11}",
               found == line.predicted.end() ? "-" : fmt::format("{:.1f}", found->second));
  }
  fmt::print("{:>11}{:>11}", cell(line.measured, &Times::warm), cell(line.measured, &Times::cold));
  const auto predicted = line.predicted.find(card);
  const bool both = line.measured && predicted != line.predicted.end();
  const double ratio = both ? line.measured->cold / predicted->second : 0;
  fmt::print("{:>8}", both ? fmt::format("{:.2f}{}", ratio, ratio > 1.5 ? " ?" : "") : "-");
  const std::optional<Times> peer = line.peer ? std::optional(line.peer->times) : std::nullopt;
  fmt::print("  {:<12}{:>9}{:>9}\n", line.peer ? line.peer->name : "-", cell(peer, &Times::warm),
             cell(peer, &Times::cold));
}

// The card of the predictions that this GPU is; empty if none.
std::string known_card() {
  cudaDeviceProp properties{};
  TESSERA_CUDA_CALL(cudaGetDeviceProperties(&properties, 0));
  int driver = 0;
  TESSERA_CUDA_CALL(cudaDriverGetVersion(&driver));
  fmt::print("GPU: {}, {} multiprocessors, {} MiB of L2, driver for CUDA {}.{}\n", properties.name,
             properties.multiProcessorCount, properties.l2CacheSize >> 20, driver / 1000,
             driver % 1000 / 10);
  const std::string name = properties.name;
  return name.find("H100") != std::string::npos   ? kH100.name
         : name.find("A100") != std::string::npos ? kA100.name
                                                  : "";
}

void run(const char* path) {
  const nlohmann::json rows = nlohmann::json::parse(std::ifstream(path))["rows"];
  const bool gpu = cuda_device_count() > 0;
  const std::string card = gpu ? known_card() : "";
  fmt::print(
      "Microseconds, forward and backward. `?`: slower than 1.5 times its prediction, an open "
      "question.\n`*`: launch by launch, since the case cannot be recorded as a graph. Ours in f32 "
      "unless said otherwise.\n{:<20}{:<28}{:>22}{:>22}{:>8}  {:<12}{:>9}{:>9}\n",
      "", "", "predicted", gpu ? "measured" : "not measured", "", "peer", "measured", "");
  fmt::print("{:<20}{:<28}{:>11}{:>11}{:>11}{:>11}{:>8}  {:<12}{:>9}{:>9}\n", "op", "shape", "H100",
             "A100", "warm", "cold", "ratio", "", "warm", "cold");
  for (std::size_t place = 0; place < gpu_cases().size(); ++place) {
    print(line_of(place, rows, gpu), card);
  }
  for (const std::int32_t length : {30, 50, 128}) {
    print(attention_line(length, 32, gpu), card);
  }
  if (!gpu) {
    fmt::print("measured: skipped, no CUDA device at hand; all numbers above are predicted\n");
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: gpu_table predicted.json\n");
    return 64;
  }
  tessera::bench::run(argv[1]);
}
