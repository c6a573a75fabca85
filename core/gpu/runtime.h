// The CUDA runtime behind our own functions: memory, device count, launch errors. No CUDA header is
// needed to read it.
#pragma once

#include <cstddef>

namespace tessera {

/// Device memory, aligned to 256. Throws Error(resource) naming the bytes.
void* cuda_allocate(std::size_t bytes);
void cuda_free(void* data) noexcept;
/// Copies between host and device in either direction; done when it returns.
void cuda_copy(void* target, const void* source, std::size_t bytes);
/// 0 without a GPU or driver.
int cuda_device_count();

namespace cu {

/// Geometry of a launch for messages and checks.
struct LaunchShape {
  const char* name;
  unsigned grid[3];
  unsigned block[3];
  std::size_t smem_bytes;
};
/// Throws Error(usage) for a shape that no GPU takes.
void check_launch_shape(const LaunchShape& shape);
/// Throws Error(resource) naming kernel and grid unless `error` (a cudaError_t) is success.
void check_launch_error(const LaunchShape& shape, int error);

}  // namespace cu
}  // namespace tessera
