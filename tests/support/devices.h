// The devices that a test walks: those of this build and machine, or of them what
// TESSERA_TEST_DEVICES names.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>

#include "core/device.h"

namespace tessera::testing_support {

/// Whether TESSERA_TEST_DEVICES, where it is set, names the device: "simt" or "cpu,cuda".
inline bool wanted(DeviceType type) {
  const char* list = std::getenv("TESSERA_TEST_DEVICES");
  return list == nullptr || std::string(list).find(name(type)) != std::string::npos;
}

/// A test that was asked for cuda must not pass without one.
inline void require_wanted_devices() {
  const bool asked = std::getenv("TESSERA_TEST_DEVICES") != nullptr && wanted(DeviceType::cuda);
  const auto all = devices();
  EXPECT_TRUE(!asked || std::ranges::count(all, DeviceType::cuda, &Device::type) > 0)
      << "TESSERA_TEST_DEVICES asks for cuda, which this build or machine has not";
}

/// Runs `body` once on each device of this build and machine that is wanted.
inline void on_wanted_devices(const std::function<void(Device)>& body) {
  require_wanted_devices();
  for (const Device device : devices()) {
    if (wanted(device.type)) {
      SCOPED_TRACE(name(device.type));
      body(device);
    }
  }
}

}  // namespace tessera::testing_support
