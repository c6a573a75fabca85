#include "core/device.h"

#include <fmt/ranges.h>

#include <cstring>

#include "core/check.h"
#ifdef TESSERA_BUILD_CUDA
#include "core/gpu/runtime.h"
#endif
#ifdef TESSERA_BUILD_SIMT
#include "core/simt/stream.h"
#endif

namespace tessera {
namespace {

thread_local std::uint64_t waits = 0;

/// What queues and events of a kind of device are made of.
struct StreamCalls {
  void* (*create_stream)();
  void (*destroy_stream)(void*);
  void (*synchronize)(void*);
  void (*copy)(void* stream, void* target, const void* source, std::size_t bytes);
  void* (*create_event)();
  void (*destroy_event)(void*);
  void (*record)(void* event, void* stream);
  void (*wait)(void* event, void* stream);
};

// Work on the cpu is done when it is queued.
constexpr StreamCalls kCpuCalls{
    [] { return static_cast<void*>(nullptr); },
    [](void*) {},
    [](void*) {},
    [](void*, void* target, const void* source, std::size_t n) { std::memcpy(target, source, n); },
    [] { return static_cast<void*>(nullptr); },
    [](void*) {},
    [](void*, void*) {},
    [](void*, void*) {}};

#ifdef TESSERA_BUILD_SIMT
constexpr StreamCalls kSimtCalls{simt::create_stream, simt::destroy_stream, simt::synchronize,
                                 simt::copy_queued,   simt::create_event,   simt::destroy_event,
                                 simt::record_event,  simt::wait_event};
#endif
#ifdef TESSERA_BUILD_CUDA
constexpr StreamCalls kCudaCalls{cuda_create_stream, cuda_destroy_stream, cuda_synchronize,
                                 cuda_copy_queued,   cuda_create_event,   cuda_destroy_event,
                                 cuda_record_event,  cuda_wait_event};
#endif

const StreamCalls& calls(Device device) {
  switch (device.type) {
    case DeviceType::cpu:
      return kCpuCalls;
    case DeviceType::simt:
#ifdef TESSERA_BUILD_SIMT
      return kSimtCalls;
#endif
      break;
    case DeviceType::cuda:
#ifdef TESSERA_BUILD_CUDA
      return kCudaCalls;
#endif
      break;
  }
  TESSERA_FAIL(ErrorKind::usage, "stream: this build has no device {}", name(device.type));
}

}  // namespace

std::uint64_t device_waits() { return waits; }
void count_device_wait() { ++waits; }

OwnedStream::OwnedStream(Device device) : device_(device), handle_(calls(device).create_stream()) {}
OwnedStream::~OwnedStream() { calls(device_).destroy_stream(handle_); }
void OwnedStream::copy(void* target, const void* source, std::size_t bytes) const {
  calls(device_).copy(handle_, target, source, bytes);
}
void OwnedStream::synchronize() const {
  waits += device_ == kCpu ? 0 : 1;
  calls(device_).synchronize(handle_);
}

Event::Event(Device device) : device_(device), handle_(calls(device).create_event()) {}
Event::~Event() { calls(device_).destroy_event(handle_); }
void Event::record(const OwnedStream& stream) const {
  calls(device_).record(handle_, stream.get().handle);
}
void Event::wait(const OwnedStream& stream) const {
  calls(device_).wait(handle_, stream.get().handle);
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

std::vector<Device> devices() {
  std::vector<Device> found{kCpu};
#ifdef TESSERA_BUILD_SIMT
  found.push_back({DeviceType::simt, 0});
#endif
#ifdef TESSERA_BUILD_CUDA
  for (int i = 0; i < cuda_device_count(); ++i) {
    found.push_back({DeviceType::cuda, static_cast<std::int8_t>(i)});
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
  TESSERA_FAIL(ErrorKind::usage, "device: expected one of {}, got '{}'", fmt::join(known, ", "),
               text);
}

}  // namespace tessera
