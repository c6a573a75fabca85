// Graph: work of a stream, recorded once and queued again as often as wanted. On cuda a CUDA graph:
// one launch for a whole training step. On simt the same launches with the same addresses, each of
// which the executor checks as ever.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "core/device.h"

namespace tessera {

/// The memory of what is made while a graph is recorded. It keeps its addresses as long as the
/// graph, or a tensor of it, lives; what is given back while recording serves the next tensor, as
/// work of one stream runs in order.
class GraphMemory {
 public:
  explicit GraphMemory(Device device) : device_(device) {}
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;

  std::byte* allocate(std::size_t bytes);
  void release(std::byte* data);
  /// A host buffer that copies of the graph read at each replay.
  std::byte* pinned(std::size_t bytes);
  /// Frees device memory with the graph, since its work may still use it.
  void adopt(std::byte* data);
  void used_in(Stream stream) { last_ = stream; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  Device device_;
  Stream last_{};
  std::size_t bytes_ = 0;
  std::map<std::byte*, std::size_t> blocks_;
  std::multimap<std::size_t, std::byte*> free_;
  std::vector<std::byte*> pinned_, adopted_;
};

class Graph {
 public:
  explicit Graph(Device device);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// Records what `body` queues in the current stream, which must be an OwnedStream; nothing of it
  /// runs. Values that the host passes by argument are those of now, for ever; host memory that is
  /// uploaded is copied and kept. What changes from replay to replay must lie in device tensors
  /// made before. Throws Error(internal) where the body reads the device or waits for it.
  void capture(const std::function<void()>& body);
  /// Queues the recorded work in the current stream.
  void replay() const;
  [[nodiscard]] bool captured() const { return graph_ != nullptr; }
  /// Of the tensors made while recording.
  [[nodiscard]] std::size_t bytes() const { return memory_ ? memory_->bytes() : 0; }

 private:
  void clear();

  Device device_;
  void* graph_ = nullptr;
  std::shared_ptr<GraphMemory> memory_;
};

/// The memory of the graph that this thread records on the device; null if none.
const std::shared_ptr<GraphMemory>& graph_memory(Device device);
/// Throws Error(internal) naming `what` while this thread records a graph on the device.
void refuse_in_capture(Device device, const char* what);

}  // namespace tessera
