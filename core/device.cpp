#include "core/device.h"

#include <fmt/ranges.h>

#include "core/check.h"
#ifdef TESSERA_BUILD_CUDA
#include "core/gpu/runtime.h"
#endif

namespace tessera {

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
