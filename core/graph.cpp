#include "core/graph.h"

#include <array>

#include "core/check.h"
#include "core/device_calls.h"

namespace tessera {
namespace {

constexpr std::size_t kUnit = 256;

std::size_t round_up(std::size_t bytes) { return (bytes + kUnit - 1) / kUnit * kUnit; }

thread_local std::array<std::shared_ptr<GraphMemory>, 3> recording;  // by device type

std::shared_ptr<GraphMemory>& recording_on(Device device) {
  return recording[static_cast<std::size_t>(device.type)];
}

}  // namespace

const std::shared_ptr<GraphMemory>& graph_memory(Device device) { return recording_on(device); }

void refuse_in_capture(Device device, const char* what) {
  TESSERA_CHECK_KIND(ErrorKind::internal, recording_on(device) == nullptr,
                     "graph: expected work that needs no host while it is recorded on {}, got {}",
                     name(device.type), what);
}

GraphMemory::~GraphMemory() {
  const DeviceCalls& calls = device_calls(device_);
  void* stream = alive(last_) ? last_.handle : nullptr;
  for (const auto& [data, bytes] : blocks_) {
    calls.free(data, stream);
  }
  for (std::byte* data : adopted_) {
    calls.free(data, stream);
  }
  for (std::byte* data : pinned_) {
    calls.free_pinned(data);
  }
}

std::byte* GraphMemory::allocate(std::size_t bytes) {
  const std::size_t wanted = round_up(bytes);
  const DeviceCalls& calls = device_calls(device_);
  const auto found = free_.lower_bound(wanted);
  if (found != free_.end() && found->first <= 2 * wanted) {
    std::byte* data = found->second;
    free_.erase(found);
    calls.poison(current_stream(device_).handle, data, blocks_.at(data));
    return data;
  }
  // In the order of the default stream: an allocation is no work of the graph.
  auto* data = static_cast<std::byte*>(calls.allocate(wanted, nullptr));
  blocks_.emplace(data, wanted);
  bytes_ += wanted;
  return data;
}

void GraphMemory::release(std::byte* data) {
  if (recording_on(device_).get() == this) {
    free_.emplace(blocks_.at(data), data);
  }
}

std::byte* GraphMemory::pinned(std::size_t bytes) {
  pinned_.push_back(static_cast<std::byte*>(device_calls(device_).allocate_pinned(bytes)));
  return pinned_.back();
}

void GraphMemory::adopt(std::byte* data) { adopted_.push_back(data); }

Graph::Graph(Device device) : device_(device) {}
Graph::~Graph() { clear(); }

void Graph::clear() {
  if (graph_ != nullptr) {
    // Its work may still be on the way, and reads memory that goes with it.
    device_calls(device_).synchronize(nullptr);
    device_calls(device_).destroy_graph(graph_);
    graph_ = nullptr;
  }
  memory_.reset();
}

void Graph::capture(const std::function<void()>& body) {
  const Stream stream = current_stream(device_);
  TESSERA_CHECK(stream.handle != nullptr && recording_on(device_) == nullptr,
                "graph: expected a stream of its own and no other recording on {}",
                name(device_.type));
  clear();
  const DeviceCalls& calls = device_calls(device_);
  memory_ = std::make_shared<GraphMemory>(device_);
  memory_->used_in(stream);
  calls.begin_capture(stream.handle);
  recording_on(device_) = memory_;
  try {
    body();
  } catch (...) {
    recording_on(device_).reset();
    calls.destroy_graph(calls.end_capture(stream.handle));
    throw;
  }
  recording_on(device_).reset();
  graph_ = calls.end_capture(stream.handle);
  calls.synchronize(nullptr);  // the memory is there before any replay
}

void Graph::replay() const {
  TESSERA_CHECK(captured(), "graph: replay of a graph that was not captured");
  const Stream stream = current_stream(device_);
  memory_->used_in(stream);
  device_calls(device_).launch_graph(graph_, stream.handle);
}

}  // namespace tessera
