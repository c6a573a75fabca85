// The CUDA runtime behind our own functions: memory, streams, events, device count, launch errors.
// No CUDA header is needed to read it.
#pragma once

#include <cstddef>

namespace tessera {

/// Device memory, aligned to 256, from the driver's pool of the device: what is freed stays with
/// the process and is given out again without a call to the driver's allocator, in the order of the
/// stream. Throws Error(resource) naming the bytes, and those that the device has left.
void* cuda_allocate(std::size_t bytes, void* stream);
/// Back to the pool, once the work queued so far on the stream is done. Null is legal.
void cuda_free(void* data, void* stream) noexcept;
/// Waits for all work, and gives what the pool does not use back to the driver.
void cuda_reclaim();
/// Page-locked memory of the host, which queued copies read and write when they run.
void* cuda_allocate_pinned(std::size_t bytes);
void cuda_free_pinned(void* data) noexcept;
/// 0 without a GPU or driver.
int cuda_device_count();

/// Streams that do not wait for the default stream; the host's memory of a queued copy must stay as
/// it is until the stream was waited for.
void* cuda_create_stream();
void cuda_destroy_stream(void* stream) noexcept;
void cuda_synchronize(void* stream);
void cuda_copy_queued(void* stream, void* target, const void* source, std::size_t bytes);

void* cuda_create_event();
void cuda_destroy_event(void* event) noexcept;
void cuda_record_event(void* event, void* stream);
void cuda_wait_event(void* event, void* stream);
bool cuda_event_reached(void* event);
void cuda_synchronize_event(void* event);

/// Work of the stream is recorded from here on; other streams of the thread go on.
void cuda_begin_capture(void* stream);
/// The recorded work, a cudaGraph_t.
void* cuda_end_capture(void* stream);
/// Ends a recording, also one that an error has spoilt, and forgets it.
void cuda_abandon_capture(void* stream) noexcept;
std::size_t cuda_graph_nodes(void* recorded);
void cuda_destroy_recorded(void* recorded) noexcept;
/// Ready to launch, a cudaGraphExec_t.
void* cuda_make_graph(void* recorded);
/// Takes over arguments and addresses of the recorded work, for later launches; false where the
/// driver finds nodes or dependencies of other kinds.
bool cuda_update_graph(void* graph, void* recorded);
void cuda_launch_graph(void* graph, void* stream);
void cuda_destroy_graph(void* graph) noexcept;

namespace cu {

/// Geometry of a launch for messages and checks.
struct LaunchShape {
  const char* name;
  unsigned grid[3];
  unsigned block[3];
  std::size_t smem_bytes;
};
/// Throws Error(usage) for a shape that the device of this thread does not take.
void check_launch_shape(const LaunchShape& shape);
/// Throws Error(resource) naming kernel and grid unless `error` (a cudaError_t) is success.
void check_launch_error(const LaunchShape& shape, int error);

}  // namespace cu
}  // namespace tessera
