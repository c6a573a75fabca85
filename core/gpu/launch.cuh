// How a kernel starts and reaches its shared memory, for nvcc (namespace cu) and for the simt
// executor. Kernel sources include this and core/gpu/prim.cuh only; they sit in namespace
// tessera::TESSERA_GPU_NS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/device.h"
#include "core/target.h"
#include "core/view.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include "core/gpu/runtime.h"
#define TESSERA_GPU_NS cu
#define TESSERA_GLOBAL __global__
#define TESSERA_DEVICE __device__ __forceinline__
#define TESSERA_UNROLL _Pragma("unroll")
#define TESSERA_KEEP_ROLLED _Pragma("unroll 1")
#else
#include "core/simt/executor.h"
#define TESSERA_GPU_NS simt
#define TESSERA_GLOBAL
#define TESSERA_DEVICE inline __attribute__((always_inline))
#define TESSERA_UNROLL
#define TESSERA_KEEP_ROLLED
#define __launch_bounds__(...)
#endif

namespace tessera::TESSERA_GPU_NS {

#if defined(__CUDACC__)
struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
#endif

/// The device that this namespace serves.
#if defined(__CUDACC__)
inline constexpr Device kDevice{DeviceType::cuda, 0};
#else
inline constexpr Device kDevice{DeviceType::simt, 0};
#endif

/// Geometry of a launch. `name` is what errors call the kernel; smem_bytes is sizeof of its struct
/// Smem.
struct LaunchConfig {
  const char* name;
  Dim3 grid, block;
  std::size_t smem_bytes = 0;
  Stream stream{};
};

/// More shared memory than this needs the opt-in attribute, which launch() sets.
inline constexpr std::size_t kFreeSmem = std::size_t{48} << 10;

#if defined(__CUDACC__)

namespace detail {
inline dim3 to_cuda(Dim3 d) { return dim3(d.x, d.y, d.z); }
}  // namespace detail

/// Queues kernel(args...) on the stream; throws Error naming kernel and grid if the launch is
/// refused.
template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchConfig& config, A&&... args) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied as bytes");
  static_assert(sizeof...(P) == 0 || (sizeof(P) + ... + 0) <= 4096, "at most 4 KiB of arguments");
  const LaunchShape shape{config.name,
                          {config.grid.x, config.grid.y, config.grid.z},
                          {config.block.x, config.block.y, config.block.z},
                          config.smem_bytes};
  check_launch_shape(shape);
  cudaError_t error = cudaSuccess;
  if (config.smem_bytes > kFreeSmem) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(config.smem_bytes));
  }
  if (error == cudaSuccess) {
    cudaLaunchConfig_t c{};
    c.gridDim = detail::to_cuda(config.grid);
    c.blockDim = detail::to_cuda(config.block);
    c.dynamicSmemBytes = config.smem_bytes;
    c.stream = static_cast<cudaStream_t>(config.stream.handle);
    error = cudaLaunchKernelEx(&c, kernel, static_cast<P>(std::forward<A>(args))...);
  }
  check_launch_error(shape, static_cast<int>(error));
}

/// The block's dynamic shared memory as the kernel's one struct.
template <class Smem>
__device__ __forceinline__ Smem& shared() {
  extern __shared__ __align__(1024) unsigned char tessera_shared_bytes[];
  return *reinterpret_cast<Smem*>(tessera_shared_bytes);
}

#else

/// Runs kernel(args...) to its end, one fiber per thread; throws Error for a fault
/// (core/simt/executor.h).
template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchConfig& config, A&&... args) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied as bytes");
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> args;
  };
  const Call call{kernel, std::tuple<P...>(static_cast<P>(std::forward<A>(args))...)};
  execute(
      {config.name, config.grid, config.block, config.smem_bytes, config.smem_bytes > kFreeSmem,
       config.stream.handle, reinterpret_cast<const void*>(kernel)},
      [](const void* p) {
        const Call& c = *static_cast<const Call*>(p);
        std::apply(c.kernel, c.args);
      },
      &call, sizeof(Call));
}

template <class Smem>
inline Smem& shared(Where where = Where::current()) {
  return *static_cast<Smem*>(shared_memory(sizeof(Smem), where));
}

#endif

}  // namespace tessera::TESSERA_GPU_NS

/// Opens the kernel's shared memory: TESSERA_SMEM(Smem, s);
#define TESSERA_SMEM(Type, name) Type& name = shared<Type>()
