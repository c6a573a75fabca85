// Every counter of a launch, by kernels of known content, and the time predicted from them.
#include "tests/core/simt/counters.h"

#include <gtest/gtest.h>

#include "tests/core/simt/support.h"
#include "tests/support/roofline.h"

namespace tessera::simt {
namespace {

TEST(SimtCounters, SectorsAreUniqueAtTheirFirstTouchInALaunch) {
  const Buffer<float> x(ramp(1024)), y(3);
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    read_again(3, 5, x.view(), y.view());
    EXPECT_EQ(last_launch().unique_sectors_read, 128U);
    EXPECT_EQ(last_launch().sectors_read, 3U * 5U * 128U);
    EXPECT_EQ(last_launch().bytes_read, 3U * 5U * 4096U);
    EXPECT_EQ(last_launch().unique_sectors_written, 1U);  // three words of one sector
    EXPECT_EQ(last_launch().sectors_written, 3U);
  }
  read_again(1, 1, x.view(), y.view());  // a new launch starts anew
  EXPECT_EQ(last_launch().unique_sectors_read, 128U);
}

TEST(SimtCounters, UniqueSectorsOfAnArrayThatEndsInsideOneOrSpansManyPages) {
  const Buffer<float> y(1);
  for (const std::size_t n : {1U, 7U, 8U, 9U, 65537U}) {
    const Buffer<float> x(ramp(n));
    read_again(1, 2, x.view(), y.view());
    EXPECT_EQ(last_launch().unique_sectors_read, (n + 7) / 8) << n;
  }
}

TEST(SimtCounters, InPlaceWorkReadsAndWritesEachSectorOnce) {
  const Buffer<float> y(ramp(32));
  in_place(4, y.view());
  EXPECT_EQ(last_launch().unique_sectors_read, 4U);
  EXPECT_EQ(last_launch().unique_sectors_written, 4U);
  EXPECT_EQ(last_launch().sectors_read, 16U);
  EXPECT_EQ(y.host()[31], 36.0F);
}

TEST(SimtCounters, ArithmeticOfALane) {
  const Buffer<float> y(32);
  arithmetic(9, y.view());
  EXPECT_EQ(last_launch().special_functions, 32U * 9U * (1 + 2 + 3));
  EXPECT_EQ(last_launch().extrema, 32U * 9U * (4 + 5));
  EXPECT_EQ(last_launch().fused, 32U * 9U * 6);
  EXPECT_EQ(last_launch().exponentials, 32U * 9U * 7);
}

TEST(SimtCounters, TensorInstructionsByShape) {
  const Buffer<float> y(32);
  tensor_shapes(5, y.view());
  EXPECT_EQ(last_launch().mma, 5U * (1 + 2 + 3 + 4));
  EXPECT_EQ(last_launch().mma_k8, 15U);
  EXPECT_EQ(tessera::tensor_work(last_launch()), 4096.0 * (50 - 7.5));
}

TEST(SimtCounters, AsynchronousCopiesCountWhatTheyRead) {
  const Buffer<float> x(ramp(128)), y(128);
  const auto launches = launches_of([&] { copy_in(x.view(), y.view()); });
  ASSERT_EQ(launches.size(), 1U);
  const LaunchStats& s = launches[0].stats;
  EXPECT_EQ(s.async_bytes, 16U * 16U + 16U * 8U);
  EXPECT_EQ(s.bytes_read, s.async_bytes);
  EXPECT_EQ(s.unique_sectors_read, 16U);
  EXPECT_EQ(y.host()[5], 6.0F);
  EXPECT_EQ(y.host()[6], 0.0F);
}

TEST(SimtCounters, ALogKeepsTheLaunchesOfItsScopeAndTheyAddUp) {
  const Buffer<float> x(ramp(64)), y(64);
  const LaunchLog outer;
  arithmetic(1, y.view());
  const auto inner = launches_of([&] {
    tensor_shapes(1, y.view());
    in_place(2, y.view());
  });
  arithmetic(2, y.view());
  ASSERT_EQ(outer.launches().size(), 4U);
  ASSERT_EQ(inner.size(), 2U);
  EXPECT_EQ(inner[0].kernel, "tensor_shapes");
  EXPECT_EQ(inner[1].block.x, 32U);
  EXPECT_EQ(total_of(inner).mma, 10U);
  EXPECT_EQ(total_of(outer.launches()).fused, 32U * 3U * 6U);
  EXPECT_EQ(total_of(outer.launches()).sectors_written, 4U * (1 + 1 + 2 + 1));
}

TEST(Roofline, TheSlowestResourceSetsTheTime) {
  struct Case {
    std::uint64_t LaunchStats::*counter;
    std::uint64_t n;
    const char* bound;
    double h100, a100;  // seconds, launch excluded
  };
  const Case cases[] = {
      {&LaunchStats::unique_sectors_read, 1U << 20, "DRAM", 33554432 / 3.35e12, 33554432 / 2.04e12},
      {&LaunchStats::unique_sectors_written, 1U << 20, "DRAM", 33554432 / 3.35e12,
       33554432 / 2.04e12},
      {&LaunchStats::sectors_read, 1U << 20, "L2", 33554432 / 5.5e12, 33554432 / 4e12},
      {&LaunchStats::sectors_written, 1U << 20, "L2", 33554432 / 5.5e12, 33554432 / 4e12},
      {&LaunchStats::mma, 1000000, "mma", 4.096e9 / 610e12, 4.096e9 / 280e12},
      {&LaunchStats::fused, 1000000, "fma", 1e6 / 29.7e12, 1e6 / 9.7e12},
      {&LaunchStats::extrema, 1000000, "max/min", 1e6 / 14.8e12, 1e6 / 9.7e12},
      {&LaunchStats::exponentials, 1000000, "special functions", 1e6 / 3.7e12, 1e6 / 2.4e12},
      {&LaunchStats::special_functions, 1000000, "special functions", 1e6 / 3.7e12, 1e6 / 2.4e12},
      {&LaunchStats::wavefronts, 1000000, "shared memory", 1.28e8 / 29.7e12, 1.28e8 / 19.5e12},
  };
  for (const Case& c : cases) {
    LaunchStats s;
    s.*c.counter = c.n;
    const Prediction h = predicted_time(s, kH100);
    const Prediction a = predicted_time(s, kA100);
    EXPECT_STREQ(h.bound, c.bound);
    EXPECT_STREQ(a.bound, c.bound);
    EXPECT_DOUBLE_EQ(h.busy, c.h100) << c.bound;
    EXPECT_DOUBLE_EQ(a.busy, c.a100) << c.bound;
    EXPECT_DOUBLE_EQ(h.seconds, c.h100 + 3e-6);
  }
}

// The floor of section "Norms" of the design: 51,200 rows of 256 bf16 in and out in 16 us.
TEST(Roofline, AgreesWithTheFloorOfLayerNorm) {
  LaunchStats s;
  s.unique_sectors_read = s.sectors_read = 51200 * 512 / 32;
  s.unique_sectors_written = s.sectors_written = (51200 * 512 + 8 * 51200) / 32;
  EXPECT_NEAR(predicted_time(s, kH100).busy, 16e-6, 0.5e-6);
}

}  // namespace
}  // namespace tessera::simt
