// GraphMemory: what the bodies of a GraphQueue make and upload while they are recorded, when no
// allocator of the device may be asked in the order of the stream.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/device.h"

namespace tessera {

/// Memory of one stream. A block that is given back serves the next tensor, of this body or a later
/// one, as the work of a stream runs in order; blocks that nobody wanted for kIdleRuns go.
class GraphMemory {
 public:
  GraphMemory(Device device, Stream stream) : device_(device), stream_(stream) {}
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;

  /// Around the recording of a body; `queued`: its work was queued, else nothing of it ever runs
  /// and what tensors of it hold is lost.
  void begin_run();
  void end_run(bool queued);
  /// What the last body uploaded stays as it is for all work queued so far.
  void mark_uploads_read() const { uploads_.back()->read.record(stream_); }
  /// The stream goes on once the memory of this run is there.
  void make_ready() const;
  [[nodiscard]] bool lost() const { return lost_; }

  /// At least `bytes` of the device; throws Error(resource).
  std::byte* allocate(std::size_t bytes);
  void release(std::byte* data);
  /// Takes over memory that was made elsewhere, until the work of the body is queued.
  void adopt(std::byte* data, Stream home) { adopted_.push_back({data, home}); }
  /// A host buffer that copies of the body read when they run.
  std::byte* pinned(std::size_t bytes);
  static constexpr int kIdleRuns = 32;

 private:
  struct Block {
    std::size_t bytes;
    std::int64_t last_run;
  };
  struct Adopted {
    std::byte* data;
    Stream home;
  };
  /// Pinned memory of one run, in slabs that are filled from the front.
  struct Uploads {
    struct Slab {
      std::byte* data;
      std::size_t bytes;
    };
    explicit Uploads(Device device) : read(device) {}
    std::vector<Slab> slabs;
    std::size_t slab = 0, used = 0;
    StreamEvent read;  // behind the run's work
  };

  void free_idle();
  [[nodiscard]] void* stream_to_free_in() const;

  Device device_;
  Stream stream_;
  bool lost_ = false, grown_ = false;
  std::int64_t runs_ = 0;
  std::unordered_map<std::byte*, Block> blocks_;
  std::multimap<std::size_t, std::byte*> free_;
  std::vector<Adopted> adopted_;
  std::deque<std::unique_ptr<Uploads>> uploads_;  // that of this run last
};

/// The memory of the body that this thread records on the device; null if none.
const std::shared_ptr<GraphMemory>& graph_memory(Device device);
/// Throws Error(internal) naming `what` while this thread records a body on the device.
void refuse_in_capture(Device device, const char* what);

/// While alive, this thread records into `memory`.
class RecordingScope {
 public:
  RecordingScope(Device device, std::shared_ptr<GraphMemory> memory);
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  Device device_;
};

}  // namespace tessera
