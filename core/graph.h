// GraphQueue: queues a body of work as one graph instead of kernel by kernel. On cuda that is one
// launch, and no gap between kernels that the host would have to fill. On simt the same launches
// with the same addresses, each of which the executor checks as ever.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/device.h"

namespace tessera {

class GraphMemory;

/// Every body is recorded anew, so its sizes, arguments, addresses and uploads are its own, and its
/// results have the bits of the same work queued directly. What is kept are the executable graphs:
/// one whose nodes are of the same number and kinds is brought up to date, which costs a fraction
/// of a new one. Bodies of one length bucket mostly have the same chain of kernels.
class GraphQueue {
 public:
  /// Bodies go to `stream`, that of an OwnedStream.
  GraphQueue(Device device, Stream stream);
  ~GraphQueue();
  GraphQueue(const GraphQueue&) = delete;
  GraphQueue& operator=(const GraphQueue&) = delete;

  /// Records what `body` queues in the current stream, which must be this one's, then queues it
  /// all. Host memory that is uploaded is copied at once; tensors of the body may outlive it.
  /// Throws Error(internal) where the body reads the device or waits for it, and what the body
  /// throws: then nothing of it runs.
  void run(const std::function<void()>& body);
  /// Queues the work of the last body again, with the same values and addresses: for measurements.
  /// Throws Error(usage) where there is none.
  void repeat();

  [[nodiscard]] Stream stream() const { return stream_; }
  /// How many graphs were made and brought up to date, and the nodes of the last one.
  struct Counts {
    std::int64_t made = 0, updated = 0;
    std::size_t nodes = 0;
  };
  [[nodiscard]] Counts counts() const { return counts_; }

  static constexpr std::size_t kKept = 8;  // executable graphs, those used last

 private:
  struct Kept {
    std::size_t nodes;
    void* graph;
  };
  void record(const std::function<void()>& body);
  [[nodiscard]] void* executable(void* recorded);
  [[nodiscard]] bool update_kept(void* recorded, std::size_t nodes);
  void drop(std::vector<Kept>::iterator kept);

  Device device_;
  Stream stream_;
  std::shared_ptr<GraphMemory> memory_;
  std::vector<Kept> kept_;  // the last used one last
  Counts counts_;
};

}  // namespace tessera
