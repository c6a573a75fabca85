// Copies between host and device that keep nobody waiting: through pinned memory of the host, which
// is reused once the copies that read it are done.
#pragma once

#include <vector>

#include "core/device.h"
#include "core/tensor.h"

namespace tessera {

/// Copies host bytes to a device in the order of the current stream; the host may change `source`
/// at once. Waits only while more than 32 MiB of earlier copies are still on their way.
void upload(Device device, void* target, const void* source, std::size_t bytes);
/// The stream goes, with all its work done.
void forget_staging(Device device, Stream stream);

/// A read of a few numbers of a device that can be asked for later.
class Readback {
 public:
  /// For tensors of `count` f32.
  Readback(Device device, std::int64_t count);
  ~Readback();
  Readback(const Readback&) = delete;
  Readback& operator=(const Readback&) = delete;

  /// Queues the copy behind the current stream's work so far. `source`: contiguous.
  void start(const Tensor& source);
  /// Waits for the last start().
  [[nodiscard]] std::vector<float> get() const;

 private:
  Device device_;
  std::int64_t count_;
  void* pinned_;
  StreamEvent copied_;
  Tensor source_;  // lives until it was read
};

}  // namespace tessera
