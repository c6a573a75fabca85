// BatchFeed: the batches of a training, each sent to the device while it computes on the one
// before.
#pragma once

#include <functional>
#include <optional>

#include "train/inputs.h"

namespace tessera {

/// Where a feed draws from.
struct BatchSource {
  std::function<Batch(std::int64_t step)> next;
  /// Where next() will read; what a checkpoint stores.
  std::function<std::vector<Cursor>()> cursors;
};

struct FeedConfig {
  Device device = kCpu;
  std::vector<Table> tables;  ///< that the model reads
  std::int64_t steps = 0;     ///< no batch is drawn for this step or a later one
};

/// Batches for steps in a row. For a device the next one travels in a stream of its own, through
/// pinned memory: its copies run beside the work on this one, behind that on the one before, whose
/// device memory they may take. So two batches lie there at most. On cpu nothing is drawn ahead.
class BatchFeed {
 public:
  BatchFeed(FeedConfig config, BatchSource source);

  /// The batch of a step; what the current stream queues from now on finds it there.
  Batch next(std::int64_t step);
  /// Where the batch after the last next() was: for checkpoints.
  [[nodiscard]] std::vector<Cursor> cursors() const;

 private:
  Batch sent(std::int64_t step);

  FeedConfig config_;
  BatchSource source_;
  std::optional<OwnedStream> copies_;  // devices only
  std::optional<StreamEvent> arrived_;
  std::optional<Batch> ahead_;
  std::vector<Cursor> before_ahead_;
};

}  // namespace tessera
