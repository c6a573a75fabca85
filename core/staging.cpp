#include "core/staging.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>

#include "core/device_calls.h"
#include "core/graph_memory.h"

namespace tessera {
namespace {

constexpr std::size_t kSlabBytes = std::size_t{4} << 20;
constexpr std::size_t kMostBytes = std::size_t{32} << 20;
constexpr std::size_t kAlignment = 256;

/// Pinned memory that one stream fills from the front.
struct Slab {
  std::byte* data;
  std::size_t bytes;
  std::size_t used = 0;
  Stream stream{};
  StreamEvent copied;  // behind the last copy out of it, once it is full

  Slab(Device device, std::size_t size)
      : data(static_cast<std::byte*>(device_calls(device).allocate_pinned(size))),
        bytes(size),
        copied(device) {}
};

/// The slabs of a device: open ones, one a stream, and full ones, the oldest first.
class Staging {
 public:
  explicit Staging(Device device) : device_(device) {}

  std::byte* take(std::size_t bytes, Stream stream) {
    const std::size_t wanted = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    Slab& slab = slab_for(wanted, stream);
    std::byte* data = slab.data + slab.used;
    slab.used += wanted;
    return data;
  }
  void forget(Stream stream) {
    for (auto it = open_.begin(); it != open_.end();) {
      if ((*it)->stream == stream) {
        full_.insert(full_.begin(), std::move(*it));  // its last event, if any, was reached
        it = open_.erase(it);
      } else {
        ++it;
      }
    }
  }
  std::mutex mutex;

 private:
  Slab& slab_for(std::size_t bytes, Stream stream) {
    const auto found =
        std::ranges::find_if(open_, [&](const auto& s) { return s->stream == stream; });
    if (found != open_.end()) {
      if ((*found)->used + bytes <= (*found)->bytes) {
        return **found;
      }
      (*found)->copied.record(stream);
      full_.push_back(std::move(*found));
      open_.erase(found);
    }
    open_.push_back(empty_slab(bytes));
    open_.back()->stream = stream;
    open_.back()->used = 0;
    return *open_.back();
  }
  std::unique_ptr<Slab> empty_slab(std::size_t bytes) {
    for (auto it = full_.begin(); it != full_.end(); ++it) {
      if ((*it)->bytes >= bytes && (*it)->copied.reached()) {
        return taken(it);
      }
    }
    if (total_ + std::max(bytes, kSlabBytes) > kMostBytes) {
      const auto oldest =
          std::ranges::find_if(full_, [&](const auto& s) { return s->bytes >= bytes; });
      if (oldest != full_.end()) {
        (*oldest)->copied.synchronize();
        return taken(oldest);
      }
    }
    total_ += std::max(bytes, kSlabBytes);
    return std::make_unique<Slab>(device_, std::max(bytes, kSlabBytes));
  }
  std::unique_ptr<Slab> taken(std::vector<std::unique_ptr<Slab>>::iterator it) {
    std::unique_ptr<Slab> slab = std::move(*it);
    full_.erase(it);
    return slab;
  }

  Device device_;
  std::size_t total_ = 0;
  std::vector<std::unique_ptr<Slab>> open_, full_;
};

Staging& staging(Device device) {
  // Live to the end, as the driver may go first.
  static auto* cuda = new Staging({DeviceType::cuda, 0});
  static auto* simt = new Staging({DeviceType::simt, 0});
  return device.type == DeviceType::cuda ? *cuda : *simt;
}

}  // namespace

void upload(Device device, void* target, const void* source, std::size_t bytes) {
  const Stream stream = current_stream(device);
  if (const auto& graph = graph_memory(device)) {
    std::byte* kept = graph->pinned(bytes);
    std::memcpy(kept, source, bytes);
    queue_copy(device, stream, target, kept, bytes);
    return;
  }
  Staging& pinned = staging(device);
  const std::lock_guard lock(pinned.mutex);
  std::byte* staged = pinned.take(bytes, stream);
  std::memcpy(staged, source, bytes);
  queue_copy(device, stream, target, staged, bytes);
}

void forget_staging(Device device, Stream stream) {
  Staging& pinned = staging(device);
  const std::lock_guard lock(pinned.mutex);
  pinned.forget(stream);
}

Readback::Readback(Device device, std::int64_t count)
    : device_(device),
      count_(count),
      pinned_(
          device_calls(device).allocate_pinned(static_cast<std::size_t>(count) * sizeof(float))),
      copied_(device) {}

Readback::~Readback() {
  if (source_.defined()) {
    try {
      copied_.synchronize();
    } catch (const Error&) {  // the error of the work that is waited for; nobody reads the numbers
    }
  }
  device_calls(device_).free_pinned(pinned_);
}

void Readback::start(const Tensor& source) {
  TESSERA_CHECK(source.dtype() == DType::f32 && source.size() == count_ && source.is_contiguous() &&
                    source.device() == device_,
                "readback: expected {} contiguous f32 on {}, got {} {} on {}", count_,
                name(device_.type), source.shape(), name(source.dtype()),
                name(source.device().type));
  refuse_in_capture(device_, "a read of the device");
  const Stream stream = current_stream(device_);
  source_ = source.detach();
  queue_copy(device_, stream, pinned_,
             source_.impl()->storage->data() +
                 static_cast<std::size_t>(source_.impl()->offset) * sizeof(float),
             static_cast<std::size_t>(count_) * sizeof(float));
  copied_.record(stream);
}

std::vector<float> Readback::get() const {
  copied_.synchronize();
  std::vector<float> values(static_cast<std::size_t>(count_));
  std::memcpy(values.data(), pinned_, values.size() * sizeof(float));
  return values;
}

}  // namespace tessera
