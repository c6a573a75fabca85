// Devices and streams.
#pragma once

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

/// An ordered queue of work on one device. On cpu work is done when the call returns.
struct Stream {
  void* handle = nullptr;
};

}  // namespace tessera
