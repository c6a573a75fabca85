#include "core/device.h"

#include <fmt/ranges.h>

#include <array>
#include <cstring>
#include <mutex>
#include <unordered_set>

#include "core/check.h"
#include "core/device_calls.h"
#include "core/graph_memory.h"
#include "core/staging.h"

namespace tessera {
namespace {

thread_local std::uint64_t waits = 0;
thread_local std::array<Stream, 3> current{};  // by device type

/// Handles of all streams that somebody owns.
struct Living {
  std::mutex mutex;
  std::unordered_set<void*> handles;
};
Living& living() {
  static auto* all = new Living;  // lives to the end: tensors of static duration ask
  return *all;
}

Stream& current_of(Device device) { return current[static_cast<std::size_t>(device.type)]; }

}  // namespace

std::uint64_t device_waits() { return waits; }
void count_device_wait() { ++waits; }

Stream current_stream(Device device) { return current_of(device); }

void queue_copy(Device device, Stream stream, void* target, const void* source, std::size_t bytes) {
  device_calls(device).copy(stream.handle, target, source, bytes);
}

void wait_for(Device device, Stream stream) {
  if (device == kCpu) {
    return;
  }
  refuse_in_capture(device, "a wait for the device");
  ++waits;
  device_calls(device).synchronize(stream.handle);
}

void queue_behind(Device device, Stream after, Stream before) {
  if (after == before || device == kCpu) {
    return;
  }
  const StreamEvent mark(device);
  mark.record(before);
  mark.wait(after);
}

OwnedStream::OwnedStream(Device device)
    : device_(device), handle_(device_calls(device).create_stream()) {
  Living& all = living();
  const std::lock_guard lock(all.mutex);
  all.handles.insert(handle_);
}

OwnedStream::~OwnedStream() {
  device_calls(device_).destroy_stream(handle_);
  if (device_ != kCpu) {
    forget_staging(device_, get());
    Living& all = living();
    const std::lock_guard lock(all.mutex);
    all.handles.erase(handle_);
  }
}

void OwnedStream::copy(void* target, const void* source, std::size_t bytes) const {
  queue_copy(device_, get(), target, source, bytes);
}
void OwnedStream::synchronize() const { wait_for(device_, get()); }

bool alive(Stream stream) {
  Living& all = living();
  const std::lock_guard lock(all.mutex);
  return stream.handle == nullptr || all.handles.contains(stream.handle);
}

StreamGuard::StreamGuard(const OwnedStream& stream)
    : device_(stream.device()), previous_(current_of(stream.device())) {
  current_of(device_) = stream.get();
}
StreamGuard::~StreamGuard() { current_of(device_) = previous_; }

StreamEvent::StreamEvent(Device device)
    : device_(device), handle_(device_calls(device).create_event()) {}
StreamEvent::~StreamEvent() { device_calls(device_).destroy_event(handle_); }
void StreamEvent::record(Stream stream) const {
  device_calls(device_).record(handle_, stream.handle);
}
void StreamEvent::wait(Stream stream) const { device_calls(device_).wait(handle_, stream.handle); }
bool StreamEvent::reached() const { return device_calls(device_).reached(handle_); }
void StreamEvent::synchronize() const {
  waits += device_ == kCpu ? 0 : 1;
  device_calls(device_).synchronize_event(handle_);
}

const char* name(DeviceType type) {
  switch (type) {
    case DeviceType::cpu:
      return "cpu";
    case DeviceType::cuda:
      return "cuda";
    case DeviceType::simt:
      return "simt";
  }
  return "?";
}

std::string name(Device device) {
  return device.index == 0 ? name(device.type)
                           : fmt::format("{}:{}", name(device.type), device.index);
}

std::vector<Device> devices() {
  std::vector<Device> found{kCpu};
#ifdef TESSERA_BUILD_SIMT
  found.push_back({DeviceType::simt, 0});
#endif
#ifdef TESSERA_BUILD_CUDA
  if (cuda_device_count() > 0) {  // the first; CUDA_VISIBLE_DEVICES chooses which one that is
    found.push_back({DeviceType::cuda, 0});
  }
#endif
  return found;
}

Device parse_device(const std::string& text) {
  std::vector<std::string> known;
  for (const Device d : devices()) {
    if (text == name(d.type)) {
      return d;
    }
    known.emplace_back(name(d.type));
  }
  const bool numbered = text.find(':') != std::string::npos;
  TESSERA_FAIL(ErrorKind::usage, "device: expected one of {}, got '{}'{}", fmt::join(known, ", "),
               text,
               numbered ? "; the first GPU is used, and CUDA_VISIBLE_DEVICES chooses which" : "");
}

}  // namespace tessera
