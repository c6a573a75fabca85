// StreamScope: for a while all work of a thread goes to a stream of its own.
#pragma once

#include "core/device.h"

namespace tessera {

/// A stream of its own for all that this thread queues for a device, from behind what the current
/// stream holds at its beginning; at its end all of it is done.
class StreamScope {
 public:
  explicit StreamScope(Device device) : stream_(device), guard_(behind_current(stream_)) {}
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  static const OwnedStream& behind_current(const OwnedStream& stream) {
    queue_behind(stream.device(), stream, current_stream(stream.device()));
    return stream;
  }

  OwnedStream stream_;
  StreamGuard guard_;
};

}  // namespace tessera
