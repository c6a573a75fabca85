#include "core/gpu/runtime.h"

#include <cuda_runtime_api.h>

#include "core/check.h"

namespace tessera {
namespace {

constexpr std::size_t kSharedLimit = std::size_t{227} << 10;

void check(cudaError_t error, const char* call) {
  TESSERA_CHECK_KIND(ErrorKind::resource, error == cudaSuccess, "{}: expected success, got {}",
                     call, cudaGetErrorString(error));
}

}  // namespace

void* cuda_allocate(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes == 0 ? 1 : bytes);
  TESSERA_CHECK_KIND(ErrorKind::resource, error == cudaSuccess,
                     "cuda_allocate: expected {} bytes of device memory, got {}", bytes,
                     cudaGetErrorString(error));
  return data;
}

void cuda_free(void* data) noexcept { static_cast<void>(cudaFree(data)); }

void cuda_copy(void* target, const void* source, std::size_t bytes) {
  check(cudaMemcpy(target, source, bytes, cudaMemcpyDefault), "cudaMemcpy");
  check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
}

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

namespace cu {

void check_launch_shape(const LaunchShape& s) {
  const std::size_t threads = std::size_t{s.block[0]} * s.block[1] * s.block[2];
  TESSERA_CHECK(threads >= 32 && threads <= 1024 && threads % 32 == 0,
                "{}: block must be a multiple of 32 up to 1024 threads, got ({}, {}, {})", s.name,
                s.block[0], s.block[1], s.block[2]);
  TESSERA_CHECK(s.smem_bytes <= kSharedLimit, "{}: shared memory must be at most {} bytes, got {}",
                s.name, kSharedLimit, s.smem_bytes);
}

void check_launch_error(const LaunchShape& s, int error) {
  TESSERA_CHECK_KIND(ErrorKind::resource, error == cudaSuccess,
                     "{}: launch of grid ({}, {}, {}), block ({}, {}, {}) with {} bytes of shared "
                     "memory: expected success, got {}",
                     s.name, s.grid[0], s.grid[1], s.grid[2], s.block[0], s.block[1], s.block[2],
                     s.smem_bytes, cudaGetErrorString(static_cast<cudaError_t>(error)));
}

}  // namespace cu
}  // namespace tessera
