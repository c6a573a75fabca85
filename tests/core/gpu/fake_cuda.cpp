#include "tests/core/gpu/fake_cuda.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

namespace tessera::fake {

Cuda& cuda() {
  static Cuda c;
  return c;
}

namespace {

/// The number of a handle.
std::uintptr_t number(const void* handle) { return reinterpret_cast<std::uintptr_t>(handle); }

template <class Handle>
Handle next_handle() {
  static std::uintptr_t last = 0;
  return reinterpret_cast<Handle>(++last);
}

/// Notes a call and returns what it is to return.
template <class... Arguments>
cudaError_t called(const char* name, const Arguments&... arguments) {
  Cuda& c = cuda();
  std::string text = name;
  ((text += fmt::format(" {}", arguments)), ...);
  c.calls.push_back(text);
  const auto planted = c.errors.find(name);
  if (planted == c.errors.end()) {
    return cudaSuccess;
  }
  c.last = planted->second;
  c.errors.erase(planted);
  return c.last;
}

template <class Handle, class... Arguments>
cudaError_t made(Handle* out, const char* name, const Arguments&... arguments) {
  const cudaError_t error = called(name, arguments...);
  *out = error == cudaSuccess ? next_handle<Handle>() : nullptr;
  return error;
}

}  // namespace
}  // namespace tessera::fake

using tessera::fake::called;
using tessera::fake::cuda;
using tessera::fake::made;
using tessera::fake::number;

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory"
         : error == cudaErrorLaunchFailure  ? "unspecified launch failure"
                                            : "some error";
}
cudaError_t cudaGetLastError() {
  called("cudaGetLastError");
  return std::exchange(cuda().last, cudaSuccess);
}
cudaError_t cudaGetDeviceCount(int* count) {
  const cudaError_t error = called("cudaGetDeviceCount");
  *count = cuda().devices;
  return error;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return called("cudaGetDevice");
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  *value = cuda().attributes[attribute];
  return called("cudaDeviceGetAttribute", static_cast<int>(attribute), device);
}
cudaError_t cudaDeviceSynchronize() { return called("cudaDeviceSynchronize"); }
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return made(pool, "cudaDeviceGetDefaultMemPool", device);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  std::uint64_t number = 0;
  std::memcpy(&number, value, sizeof(number));
  return called("cudaMemPoolSetAttribute", static_cast<int>(attribute), number);
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t bytes) {
  return called("cudaMemPoolTrimTo", bytes);
}
cudaError_t cudaMemGetInfo(std::size_t* left, std::size_t* total) {
  *left = 5;
  *total = 80;
  return called("cudaMemGetInfo");
}
cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream) {
  const cudaError_t error = called("cudaMallocAsync", bytes, number(stream));
  *data = error == cudaSuccess ? std::malloc(bytes) : nullptr;
  return error;
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  std::free(data);
  return called("cudaFreeAsync", number(stream));
}
cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned flags) {
  const cudaError_t error = called("cudaHostAlloc", bytes, flags);
  *data = error == cudaSuccess ? std::malloc(bytes) : nullptr;
  return error;
}
cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return called("cudaFreeHost");
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  std::memcpy(target, source, bytes);
  return called("cudaMemcpyAsync", bytes, static_cast<int>(kind), number(stream));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return made(stream, "cudaStreamCreateWithFlags", flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return called("cudaStreamDestroy", number(stream));
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return called("cudaStreamSynchronize", number(stream));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return called("cudaStreamWaitEvent", number(stream), number(event), flags);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return made(event, "cudaEventCreateWithFlags", flags);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return called("cudaEventDestroy", number(event));
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return called("cudaEventRecord", number(event), number(stream));
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return called("cudaEventQuery", number(event)); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return called("cudaEventSynchronize", number(event));
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return called("cudaStreamBeginCapture", number(stream), static_cast<int>(mode));
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return made(graph, "cudaStreamEndCapture", number(stream));
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  *count = 7;
  return called("cudaGraphGetNodes", number(graph), nodes == nullptr ? "count" : "nodes");
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return called("cudaGraphDestroy", number(graph));
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* graph, cudaGraph_t recorded,
                                 unsigned long long flags) {
  return made(graph, "cudaGraphInstantiate", number(recorded), flags);
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t graph, cudaGraph_t recorded,
                                cudaGraphExecUpdateResultInfo*) {
  return called("cudaGraphExecUpdate", number(graph), number(recorded));
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  return called("cudaGraphLaunch", number(graph), number(stream));
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return called("cudaGraphExecDestroy", number(graph));
}

}  // extern "C"
