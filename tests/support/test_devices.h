// Tests that run on every device beside the cpu: on simt at several schedules, on a GPU where there
// is one.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/simt/memory.h"
#include "support/schedules.h"

namespace tessera {

/// The devices beside the cpu that this build and machine have and that TESSERA_TEST_DEVICES, where
/// it is set, names. A run that asks for cuda must not pass without one.
inline std::vector<Device> test_devices() {
  const char* asked = std::getenv("TESSERA_TEST_DEVICES");
  const std::string list = asked == nullptr ? "simt,cuda" : asked;
  std::vector<Device> all = devices();
  std::erase_if(
      all, [&](Device d) { return d == kCpu || list.find(name(d.type)) == std::string::npos; });
  if (asked != nullptr && list.find("cuda") != std::string::npos &&
      std::ranges::count(all, DeviceType::cuda, &Device::type) == 0) {
    ADD_FAILURE() << "TESSERA_TEST_DEVICES asks for cuda, which this build or machine has not";
  }
  return all;
}

/// A suite TEST_P of one device. What is left in the default stream is done before the next test.
class OnDevice : public ::testing::TestWithParam<Device> {
 public:
  /// That of the running test.
  [[nodiscard]] static Device device() { return GetParam(); }

 protected:
  ~OnDevice() override {
    wait_for(GetParam(), Stream{});
    EXPECT_EQ(simt::take_memory_fault(), nullptr);
  }
  /// body(seed) at the first `count` schedules of simt, once on a GPU.
  static void at_schedules(std::uint64_t count, const std::function<void(std::uint64_t)>& body) {
    for (std::uint64_t seed = 0; seed < (device().type == DeviceType::simt ? count : 1); ++seed) {
      const simt::ScheduleGuard schedule(schedule_of(seed));
      SCOPED_TRACE(::testing::Message() << "schedule " << seed);
      body(seed);
    }
  }
};

/// INSTANTIATE_TEST_SUITE_P(Devices, Suite, kTestDevices, device_name);
inline const auto kTestDevices = ::testing::ValuesIn(test_devices());
inline std::string device_name(const ::testing::TestParamInfo<Device>& info) {
  return name(info.param.type);
}

}  // namespace tessera
