// A CUDA runtime library that records its calls and computes nothing: what core/gpu/runtime.cpp is
// linked against in its test, so that it runs without a GPU, a driver and nvcc. Memory is the
// host's, handles are numbers.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace tessera::fake {

struct Cuda {
  std::vector<std::string> calls;             ///< "cudaStreamSynchronize 2"
  std::map<std::string, cudaError_t> errors;  ///< what the next call of this name returns, once
  int devices = 1;
  std::map<int, int> attributes{{cudaDevAttrMaxThreadsPerBlock, 1024},
                                {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 * 1024}};
  cudaError_t last = cudaSuccess;  ///< that cudaGetLastError() would find

  /// The calls since the last time, emptied.
  std::vector<std::string> take() { return std::exchange(calls, {}); }
};

/// That of the program.
Cuda& cuda();

}  // namespace tessera::fake
