#include "core/device_calls.h"

#include <cstdlib>
#include <cstring>

#include "core/check.h"

namespace tessera {
namespace {

constexpr std::size_t kAlignment = 64;

void* allocate_host(std::size_t bytes) {
  void* p = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  TESSERA_CHECK_KIND(ErrorKind::resource, p != nullptr,
                     "memory: {} bytes requested on cpu, none given", bytes);
  return p;
}

[[noreturn]] void no_graph() { TESSERA_FAIL(ErrorKind::usage, "graph: cpu work is not queued"); }

// Work on the cpu is done when it is queued.
constexpr DeviceCalls kCpuCalls{
    .allocate = [](std::size_t bytes, void*) { return allocate_host(bytes); },
    .free = [](void* data, void*) { std::free(data); },
    .reclaim = [] {},
    .allocate_pinned = allocate_host,
    .free_pinned = std::free,
    .create_stream = [] { return static_cast<void*>(nullptr); },
    .destroy_stream = [](void*) {},
    .synchronize = [](void*) {},
    .copy = [](void*, void* target, const void* source,
               std::size_t n) { std::memcpy(target, source, n); },
    .create_event = [] { return static_cast<void*>(nullptr); },
    .destroy_event = [](void*) {},
    .record = [](void*, void*) {},
    .wait = [](void*, void*) {},
    .reached = [](void*) { return true; },
    .synchronize_event = [](void*) {},
    .begin_capture = [](void*) { no_graph(); },
    .end_capture = [](void*) -> void* { no_graph(); },
    .abandon_capture = [](void*) {},
    .graph_nodes = [](void*) -> std::size_t { no_graph(); },
    .destroy_recorded = [](void*) {},
    .make_graph = [](void*) -> void* { no_graph(); },
    .update_graph = [](void*, void*) -> bool { no_graph(); },
    .launch_graph = [](void*, void*) { no_graph(); },
    .destroy_graph = [](void*) {},
    .poison = [](void*, void*, std::size_t) {}};

#ifdef TESSERA_BUILD_SIMT
constexpr DeviceCalls kSimtCalls{
    .allocate = simt::allocate_queued,
    .free = simt::free_queued,
    .reclaim = [] { simt::synchronize(nullptr); },
    .allocate_pinned = allocate_host,
    .free_pinned = std::free,
    .create_stream = simt::create_stream,
    .destroy_stream = simt::destroy_stream,
    .synchronize = simt::synchronize,
    .copy = simt::copy_queued,
    .create_event = simt::create_event,
    .destroy_event = simt::destroy_event,
    .record = simt::record_event,
    .wait = simt::wait_event,
    .reached = simt::event_reached,
    .synchronize_event = simt::synchronize_event,
    .begin_capture = simt::begin_capture,
    .end_capture = simt::end_capture,
    .abandon_capture = simt::abandon_capture,
    .graph_nodes = simt::graph_nodes,
    .destroy_recorded = simt::destroy_recorded,
    .make_graph = simt::make_graph,
    .update_graph = simt::update_graph,
    .launch_graph = simt::launch_graph,
    .destroy_graph = simt::destroy_graph,
    .poison = simt::poison_queued};
#endif

#ifdef TESSERA_BUILD_CUDA
constexpr DeviceCalls kCudaCalls{.allocate = cuda_allocate,
                                 .free = cuda_free,
                                 .reclaim = cuda_reclaim,
                                 .allocate_pinned = cuda_allocate_pinned,
                                 .free_pinned = cuda_free_pinned,
                                 .create_stream = cuda_create_stream,
                                 .destroy_stream = cuda_destroy_stream,
                                 .synchronize = cuda_synchronize,
                                 .copy = cuda_copy_queued,
                                 .create_event = cuda_create_event,
                                 .destroy_event = cuda_destroy_event,
                                 .record = cuda_record_event,
                                 .wait = cuda_wait_event,
                                 .reached = cuda_event_reached,
                                 .synchronize_event = cuda_synchronize_event,
                                 .begin_capture = cuda_begin_capture,
                                 .end_capture = cuda_end_capture,
                                 .abandon_capture = cuda_abandon_capture,
                                 .graph_nodes = cuda_graph_nodes,
                                 .destroy_recorded = cuda_destroy_recorded,
                                 .make_graph = cuda_make_graph,
                                 .update_graph = cuda_update_graph,
                                 .launch_graph = cuda_launch_graph,
                                 .destroy_graph = cuda_destroy_graph,
                                 .poison = [](void*, void*, std::size_t) {}};
#endif

}  // namespace

const DeviceCalls& device_calls(Device device) {
  TESSERA_CHECK(device.index == 0,
                "device: expected the first of its kind, got {}; CUDA_VISIBLE_DEVICES chooses the "
                "GPU",
                name(device));
  switch (device.type) {
    case DeviceType::cpu:
      return kCpuCalls;
    case DeviceType::simt:
#ifdef TESSERA_BUILD_SIMT
      return kSimtCalls;
#endif
      break;
    case DeviceType::cuda:
#ifdef TESSERA_BUILD_CUDA
      return kCudaCalls;
#endif
      break;
  }
  TESSERA_FAIL(ErrorKind::usage, "device: this build has no device {}", name(device.type));
}

}  // namespace tessera
