#include "core/graph.h"

#include <algorithm>

#include "core/check.h"
#include "core/device_calls.h"
#include "core/graph_memory.h"

namespace tessera {

GraphQueue::GraphQueue(Device device, Stream stream) : device_(device), stream_(stream) {
  TESSERA_CHECK(device != kCpu && stream.handle != nullptr,
                "graph: expected a stream of its own on a device, got {} of {}",
                stream.handle != nullptr ? "one" : "the default stream", name(device.type));
}

GraphQueue::~GraphQueue() {
  while (!kept_.empty()) {
    drop(kept_.begin());
  }
}

// Its work may still be on the way.
void GraphQueue::drop(std::vector<Kept>::iterator kept) {
  const DeviceCalls& calls = device_calls(device_);
  if (alive(stream_)) {
    try {
      calls.synchronize(stream_.handle);
    } catch (const Error&) {  // of work that somebody else waits for
    }
  }
  calls.destroy_graph(kept->graph);
  kept_.erase(kept);
}

void GraphQueue::run(const std::function<void()>& body) {
  TESSERA_CHECK(current_stream(device_) == stream_,
                "graph: expected the stream it was made for to be current on {}",
                name(device_.type));
  if (memory_ == nullptr || memory_->lost()) {
    memory_ = std::make_shared<GraphMemory>(device_, stream_);
  }
  memory_->begin_run();
  try {
    record(body);
  } catch (...) {
    memory_->end_run(false);
    throw;
  }
  memory_->end_run(true);
}

void GraphQueue::repeat() {
  TESSERA_CHECK(!kept_.empty() && !memory_->lost(), "graph: no body was run that could be again");
  device_calls(device_).launch_graph(kept_.back().graph, stream_.handle);
  memory_->mark_uploads_read();
}

void GraphQueue::record(const std::function<void()>& body) {
  const DeviceCalls& calls = device_calls(device_);
  calls.begin_capture(stream_.handle);
  try {
    const RecordingScope scope(device_, memory_);
    body();
  } catch (...) {
    calls.abandon_capture(stream_.handle);
    throw;
  }
  const auto destroy = [&](void* recorded) { calls.destroy_recorded(recorded); };
  const std::unique_ptr<void, decltype(destroy)> recorded(calls.end_capture(stream_.handle),
                                                          destroy);
  void* graph = executable(recorded.get());
  memory_->make_ready();
  calls.launch_graph(graph, stream_.handle);
}

void* GraphQueue::executable(void* recorded) {
  const DeviceCalls& calls = device_calls(device_);
  counts_.nodes = calls.graph_nodes(recorded);
  if (!update_kept(recorded, counts_.nodes)) {
    if (kept_.size() == kKept) {
      drop(kept_.begin());
    }
    kept_.push_back({counts_.nodes, calls.make_graph(recorded)});
    ++counts_.made;
  }
  return kept_.back().graph;
}

// A graph of as many nodes that are not of the same kinds cannot be used any more.
bool GraphQueue::update_kept(void* recorded, std::size_t nodes) {
  const auto found = std::ranges::find(kept_, nodes, &Kept::nodes);
  if (found == kept_.end()) {
    return false;
  }
  if (!device_calls(device_).update_graph(found->graph, recorded)) {
    drop(found);
    return false;
  }
  std::rotate(found, found + 1, kept_.end());
  ++counts_.updated;
  return true;
}

}  // namespace tessera
