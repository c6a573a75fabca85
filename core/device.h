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
/// The devices that this build and this machine can run; cpu first.
std::vector<Device> devices();
/// The device called `text`; throws Error(usage) with the list of those at hand.
Device parse_device(const std::string& text);

/// How often this thread has waited for a device: reads of its memory and synchronisations. A step
/// of training waits once, for what it left.
std::uint64_t device_waits();
/// For whoever waits.
void count_device_wait();

/// An ordered queue of work on one device. On cpu work is done when the call returns.
struct Stream {
  void* handle = nullptr;
};

/// A queue of its own, independent of the others and of the default queue of Stream{}. Work that
/// is left runs before it goes.
class OwnedStream {
 public:
  explicit OwnedStream(Device device);
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;

  [[nodiscard]] Stream get() const { return {handle_}; }
  [[nodiscard]] Device device() const { return device_; }
  /// Queues a copy between host and device. Both memories must stay as they are until it is waited
  /// for.
  void copy(void* target, const void* source, std::size_t bytes) const;
  /// Returns when all work queued so far is done.
  void synchronize() const;

 private:
  Device device_;
  void* handle_;
};

/// A mark in one queue that others wait for.
class Event {
 public:
  explicit Event(Device device);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  /// Behind all work queued so far.
  void record(const OwnedStream& stream) const;
  /// What is queued in `stream` from now on runs after the last mark; without a mark at once.
  void wait(const OwnedStream& stream) const;

 private:
  Device device_;
  void* handle_;
};

}  // namespace tessera
