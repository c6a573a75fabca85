// cuDNN as a second oracle of attention: that it takes what we ask for, on the host; that values
// agree, where there is a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "bench/gpu/cudnn_attention.h"
#include "core/autograd.h"
#include "core/rng.h"
#include "kernels/attention/attention.h"

namespace tessera {
namespace {

const std::vector<std::int32_t> kLengths{50, 1, 31, 128, 16, 64};

// As cuDNN writes down a device; figures of NVIDIA's white papers.
std::string device_json(int capability, int multiprocessors, int shared_bytes) {
  return R"({"cudaDeviceId":0,"driverVer":13000,"deviceVer":)" + std::to_string(capability) +
         R"(,"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64])"
         R"(,"regsPerBlock":65536,"multiProcessorCount":)" +
         std::to_string(multiprocessors) +
         R"(,"warpSize":32,"maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":)" +
         std::to_string(shared_bytes) +
         R"(,"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":32)"
         R"(,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0)"
         R"(,"supportCoopLaunch":1,"smClockRateKHz":1410000,"memClockRateKHz":1593000)"
         R"(,"l2CacheSize":41943040,"totalGlobalMem":85000000000,"deviceName":"NVIDIA"})";
}

TEST(CudnnAttention, EnginesAreProposedForPackedHeadsOnA100AndH100) {
  const Segments segments = Segments::from_lengths(kLengths);
  for (const std::int64_t width : {8, 16, 32, 64}) {
    const bench::CudnnAttentionGraph graph(segments, 8, width, nullptr);
    EXPECT_GT(graph.proposals(device_json(800, 108, 166912).c_str()), 0) << "A100, D " << width;
    EXPECT_GT(graph.proposals(device_json(900, 132, 232448).c_str()), 0) << "H100, D " << width;
  }
}

TEST(CudnnAttention, AgreesWithOursOnAGpu) {
  const auto all = devices();
  if (std::ranges::count(all, DeviceType::cuda, &Device::type) == 0) {
    GTEST_SKIP() << "no CUDA device at hand";
  }
  const NoGrad off;
  const Device cuda{DeviceType::cuda, 0};
  const Segments segments = Segments::from_lengths(kLengths);
  for (const std::int64_t width : {8, 16, 32, 64}) {
    Rng rng(7);
    std::vector<float> values(static_cast<std::size_t>(segments.total() * 3 * 8 * width));
    for (float& x : values) {
      x = static_cast<float>(rng.normal());
    }
    const Tensor qkv =
        Tensor::from(values, {segments.total(), 3, 8, width}).to(DType::bf16).to(cuda);
    const Tensor theirs = Tensor::zeros({segments.total(), 8, width}, DType::bf16, cuda);
    bench::CudnnAttention(segments, 8, width)(qkv, theirs);
    const auto got = attention(qkv, segments).to(kCpu).to(DType::f32).to_vector<float>();
    const auto expected = theirs.to(kCpu).to(DType::f32).to_vector<float>();
    double error = 0, size = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      error += std::pow(static_cast<double>(got[i]) - static_cast<double>(expected[i]), 2);
      size += std::pow(static_cast<double>(expected[i]), 2);
    }
    EXPECT_LE(std::sqrt(error / size), 8e-3) << "D " << width;  // each within 4e-3 of the truth
  }
}

}  // namespace
}  // namespace tessera
