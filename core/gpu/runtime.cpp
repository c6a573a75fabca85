#include "core/gpu/runtime.h"

#include <cstdint>
#include <vector>

#include "core/check.h"
#include "core/gpu/cuda_call.h"

namespace tessera {
namespace {

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

// The pool gives nothing back to the system at a wait; else each step would allocate anew.
void keep_freed_memory() {
  static const bool done = [] {
    int device = 0;
    TESSERA_CUDA_CALL(cudaGetDevice(&device));
    cudaMemPool_t pool = nullptr;
    TESSERA_CUDA_CALL(cudaDeviceGetDefaultMemPool(&pool, device));
    std::uint64_t all = UINT64_MAX;
    TESSERA_CUDA_CALL(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
    return true;
  }();
  static_cast<void>(done);
}

// What one block may have on a device.
struct BlockLimits {
  int threads = 0, shared_bytes = 0;
};

BlockLimits limits_of(int device) {
  BlockLimits l;
  TESSERA_CUDA_CALL(cudaDeviceGetAttribute(&l.threads, cudaDevAttrMaxThreadsPerBlock, device));
  TESSERA_CUDA_CALL(
      cudaDeviceGetAttribute(&l.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return l;
}

// On the device of this thread. All devices are asked at the first launch, since it may change.
const BlockLimits& block_limits() {
  static const std::vector<BlockLimits> limits = [] {
    int count = 0;
    TESSERA_CUDA_CALL(cudaGetDeviceCount(&count));
    std::vector<BlockLimits> all;
    for (int device = 0; device < count; ++device) {
      all.push_back(limits_of(device));
    }
    return all;
  }();
  int device = 0;
  TESSERA_CUDA_CALL(cudaGetDevice(&device));
  return limits[static_cast<std::size_t>(device)];
}

}  // namespace

void* cuda_allocate(std::size_t bytes, void* stream) {
  keep_freed_memory();
  void* data = nullptr;
  const cudaError_t error = cudaMallocAsync(&data, bytes == 0 ? 1 : bytes, stream_of(stream));
  if (error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // the next call must not find it
    std::size_t left = 0, total = 0;
    static_cast<void>(cudaMemGetInfo(&left, &total));
    TESSERA_FAIL(ErrorKind::resource,
                 "cuda_allocate: expected {} bytes of device memory, got {}; {} of {} are left",
                 bytes, cudaGetErrorString(error), left, total);
  }
  return data;
}

void cuda_free(void* data, void* stream) noexcept {
  if (data != nullptr) {
    static_cast<void>(cudaFreeAsync(data, stream_of(stream)));
  }
}

void cuda_reclaim() {
  TESSERA_CUDA_CALL(cudaDeviceSynchronize());
  int device = 0;
  TESSERA_CUDA_CALL(cudaGetDevice(&device));
  cudaMemPool_t pool = nullptr;
  TESSERA_CUDA_CALL(cudaDeviceGetDefaultMemPool(&pool, device));
  TESSERA_CUDA_CALL(cudaMemPoolTrimTo(pool, 0));
}

void* cuda_allocate_pinned(std::size_t bytes) {
  void* data = nullptr;
  TESSERA_CUDA_CALL(cudaHostAlloc(&data, bytes == 0 ? 1 : bytes, cudaHostAllocDefault));
  return data;
}

void cuda_free_pinned(void* data) noexcept { static_cast<void>(cudaFreeHost(data)); }

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void* cuda_create_stream() {
  cudaStream_t stream = nullptr;
  TESSERA_CUDA_CALL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void cuda_destroy_stream(void* stream) noexcept {
  static_cast<void>(cudaStreamSynchronize(stream_of(stream)));
  static_cast<void>(cudaStreamDestroy(stream_of(stream)));
}

void cuda_synchronize(void* stream) {
  if (stream == nullptr) {
    TESSERA_CUDA_CALL(cudaDeviceSynchronize());
  } else {
    TESSERA_CUDA_CALL(cudaStreamSynchronize(stream_of(stream)));
  }
}

void cuda_copy_queued(void* stream, void* target, const void* source, std::size_t bytes) {
  TESSERA_CUDA_CALL(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, stream_of(stream)));
}

void* cuda_create_event() {
  cudaEvent_t event = nullptr;
  TESSERA_CUDA_CALL(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

void cuda_destroy_event(void* event) noexcept {
  static_cast<void>(cudaEventDestroy(event_of(event)));
}

void cuda_record_event(void* event, void* stream) {
  TESSERA_CUDA_CALL(cudaEventRecord(event_of(event), stream_of(stream)));
}

void cuda_wait_event(void* event, void* stream) {
  TESSERA_CUDA_CALL(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
}

bool cuda_event_reached(void* event) {
  const cudaError_t error = cudaEventQuery(event_of(event));
  if (error == cudaErrorNotReady) {
    return false;
  }
  cu::check_call(error, "cudaEventQuery(event)");
  return true;
}

void cuda_synchronize_event(void* event) {
  TESSERA_CUDA_CALL(cudaEventSynchronize(event_of(event)));
}

// Relaxed: memory for what the recorded work makes is allocated meanwhile, in another stream.
void cuda_begin_capture(void* stream) {
  TESSERA_CUDA_CALL(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeRelaxed));
}

void* cuda_end_capture(void* stream) {
  cudaGraph_t graph = nullptr;
  TESSERA_CUDA_CALL(cudaStreamEndCapture(stream_of(stream), &graph));
  return graph;
}

void cuda_abandon_capture(void* stream) noexcept {
  cudaGraph_t graph = nullptr;
  static_cast<void>(cudaStreamEndCapture(stream_of(stream), &graph));
  cuda_destroy_recorded(graph);
  static_cast<void>(cudaGetLastError());  // the next call must not find it
}

std::size_t cuda_graph_nodes(void* recorded) {
  std::size_t nodes = 0;
  TESSERA_CUDA_CALL(cudaGraphGetNodes(static_cast<cudaGraph_t>(recorded), nullptr, &nodes));
  return nodes;
}

void cuda_destroy_recorded(void* recorded) noexcept {
  if (recorded != nullptr) {
    static_cast<void>(cudaGraphDestroy(static_cast<cudaGraph_t>(recorded)));
  }
}

void* cuda_make_graph(void* recorded) {
  cudaGraphExec_t graph = nullptr;
  TESSERA_CUDA_CALL(cudaGraphInstantiate(&graph, static_cast<cudaGraph_t>(recorded), 0));
  return graph;
}

bool cuda_update_graph(void* graph, void* recorded) {
  cudaGraphExecUpdateResultInfo why{};
  const cudaError_t error = cudaGraphExecUpdate(static_cast<cudaGraphExec_t>(graph),
                                                static_cast<cudaGraph_t>(recorded), &why);
  if (error == cudaErrorGraphExecUpdateFailure) {
    static_cast<void>(cudaGetLastError());  // the next call must not find it
    return false;
  }
  cu::check_call(error, "cudaGraphExecUpdate(graph, recorded)");
  return true;
}

void cuda_launch_graph(void* graph, void* stream) {
  TESSERA_CUDA_CALL(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)));
}

void cuda_destroy_graph(void* graph) noexcept {
  static_cast<void>(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
}

namespace cu {

void check_call(cudaError_t error, const char* call) {
  TESSERA_CHECK_KIND(ErrorKind::resource, error == cudaSuccess, "{}: expected success, got {}",
                     call, cudaGetErrorString(error));
}

void check_launch_shape(const LaunchShape& s) {
  const std::size_t threads = std::size_t{s.block[0]} * s.block[1] * s.block[2];
  const BlockLimits& most = block_limits();
  TESSERA_CHECK(
      threads >= 32 && threads <= static_cast<std::size_t>(most.threads) && threads % 32 == 0,
      "{}: block must be a multiple of 32 up to {} threads, got ({}, {}, {})", s.name, most.threads,
      s.block[0], s.block[1], s.block[2]);
  TESSERA_CHECK(s.smem_bytes <= static_cast<std::size_t>(most.shared_bytes),
                "{}: shared memory must be at most {} bytes on this device, got {}", s.name,
                most.shared_bytes, s.smem_bytes);
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
