// Devices and streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

enum class DeviceType : std::uint8_t { cpu, cuda, simt };

/// A place where tensors live and kernels run. simt executes the CUDA sources on the host, for
/// tests.
struct Device {
  DeviceType type = DeviceType::cpu;
  std::int8_t index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

inline constexpr Device kCpu{};

/// "cpu", "cuda", "simt"
const char* name(DeviceType type);
/// The same with the index of the second device of its kind and those behind it: "cuda:1".
std::string name(Device device);
/// The devices that this build and this machine can run; cpu first.
std::vector<Device> devices();
/// The device called `text`; throws Error(usage) with the list of those at hand.
Device parse_device(const std::string& text);

/// How often this thread has waited for a device: reads of its memory and synchronisations. A step
/// of training waits once, for what it left.
std::uint64_t device_waits();
/// For whoever waits.
void count_device_wait();

/// An ordered queue of work on one device. On cpu work is done when the call returns. Given to the
/// table of a kernel, Stream{} is the thread's current one.
struct Stream {
  void* handle = nullptr;
  friend bool operator==(const Stream&, const Stream&) = default;
};

/// Where this thread queues kernels, copies, allocations and frees: the default queue of the
/// device, unless a StreamGuard lives.
Stream current_stream(Device device);
/// Queues a copy between host and device. Both memories must stay as they are until it is done.
void queue_copy(Device device, Stream stream, void* target, const void* source, std::size_t bytes);
/// Returns when all work queued so far is done; Stream{}: that of the default queue.
void wait_for(Device device, Stream stream);
/// What is queued in `after` from now on runs after all that was queued in `before` so far.
void queue_behind(Device device, Stream after, Stream before);

/// A queue of its own, independent of the others and of the default queue of Stream{}. Work that
/// is left runs before it goes.
class OwnedStream {
 public:
  explicit OwnedStream(Device device);
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;

  [[nodiscard]] Stream get() const { return {handle_}; }
  operator Stream() const { return get(); }  // NOLINT: it is one
  [[nodiscard]] Device device() const { return device_; }
  /// queue_copy() here.
  void copy(void* target, const void* source, std::size_t bytes) const;
  /// Returns when all work queued so far is done.
  void synchronize() const;

 private:
  Device device_;
  void* handle_;
};
/// Whether the stream is Stream{} or that of a living OwnedStream.
bool alive(Stream stream);

/// While alive, what this thread queues for the device of `stream` goes there.
class StreamGuard {
 public:
  explicit StreamGuard(const OwnedStream& stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  Device device_;
  Stream previous_;
};

/// A mark in one queue that others, or the host, wait for.
class StreamEvent {
 public:
  explicit StreamEvent(Device device);
  ~StreamEvent();
  StreamEvent(const StreamEvent&) = delete;
  StreamEvent& operator=(const StreamEvent&) = delete;

  /// Behind all work queued so far.
  void record(Stream stream) const;
  /// What is queued in `stream` from now on runs after the last mark; without a mark at once.
  void wait(Stream stream) const;
  /// Whether the last mark was reached, or there is none.
  [[nodiscard]] bool reached() const;
  /// The host waits for the last mark.
  void synchronize() const;

 private:
  Device device_;
  void* handle_;
};

}  // namespace tessera
