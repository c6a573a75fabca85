// What a kind of device is made of: memory, queues, events, graphs. Private to core.
#pragma once

#include <cstddef>

#include "core/device.h"
#ifdef TESSERA_BUILD_CUDA
#include "core/gpu/runtime.h"
#endif
#ifdef TESSERA_BUILD_SIMT
#include "core/simt/memory.h"
#include "core/simt/stream.h"
#endif

namespace tessera {

struct DeviceCalls {
  /// At least `bytes` > 0, in the order of the stream; throws Error(resource).
  void* (*allocate)(std::size_t bytes, void* stream);
  /// Once the work queued so far in the stream is done.
  void (*free)(void* data, void* stream);
  /// Gives to other allocations what queued frees and caches still hold; waits.
  void (*reclaim)();
  /// Memory of the host that copies read and write when they run.
  void* (*allocate_pinned)(std::size_t bytes);
  void (*free_pinned)(void* data);

  void* (*create_stream)();
  void (*destroy_stream)(void*);
  void (*synchronize)(void*);
  void (*copy)(void* stream, void* target, const void* source, std::size_t bytes);

  void* (*create_event)();
  void (*destroy_event)(void*);
  void (*record)(void* event, void* stream);
  void (*wait)(void* event, void* stream);
  bool (*reached)(void* event);
  void (*synchronize_event)(void* event);

  /// From now on work of the stream is recorded and not run.
  void (*begin_capture)(void* stream);
  /// The recorded work.
  void* (*end_capture)(void* stream);
  /// Ends a recording whatever became of it, and forgets it.
  void (*abandon_capture)(void* stream);
  /// Of kernels, copies and the like in recorded work.
  std::size_t (*graph_nodes)(void* recorded);
  void (*destroy_recorded)(void* recorded);
  /// What launch_graph() queues.
  void* (*make_graph)(void* recorded);
  /// The graph becomes one of this work, for later launches; false if its nodes are of other
  /// kinds: then it must not be launched any more.
  bool (*update_graph)(void* graph, void* recorded);
  void (*launch_graph)(void* graph, void* stream);
  void (*destroy_graph)(void* graph);
  /// Marks memory that a graph gives out again as unwritten, where the device can tell.
  void (*poison)(void* stream, void* data, std::size_t bytes);
};

/// Throws Error(usage) where the build lacks the device.
const DeviceCalls& device_calls(Device device);

}  // namespace tessera
