#include "core/simt/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/dtype.h"
#include "core/simt/memory.h"
#include "tests/core/simt/faults.h"
#include "tests/core/simt/support.h"

namespace tessera::simt {
namespace {

struct Planted {
  Fault fault;
  const char* name;
  std::vector<const char*> words;  // any one of these stands in the report
  bool by_hooks = false;           // plain accesses, seen only by instrumentation
};
void PrintTo(const Planted& p, std::ostream* out) { *out << p.name; }

class PlantedFault : public testing::TestWithParam<Planted> {
 protected:
  static void run(bool broken) {
    const Buffer<float> x(ramp(64));
    // The ticket of the last-block scheme stands in the first word of the second half.
    const Buffer<float> y(128);
    if (!(broken && GetParam().fault == Fault::unset_ticket)) {
      const float zero = 0;
      simt_copy(y.data + 64, &zero, 4);
    }
    View<const float, 1> in = x.view();
    std::vector<float> host = ramp(64);
    if (broken && GetParam().fault == Fault::host_pointer) {
      in.data = host.data();
    }
    run_fault(GetParam().fault, broken, in, y.view(64));
  }
};

TEST_P(PlantedFault, IsReportedInEveryOrder) {
#if defined(__SANITIZE_ADDRESS__)
  if (GetParam().by_hooks) {
    GTEST_SKIP() << "sanitizer builds replace the access hooks";
  }
#endif
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    try {
      run(true);
      ADD_FAILURE() << "nothing reported in order " << static_cast<int>(s.order) << " seed "
                    << s.seed;
    } catch (const Error& e) {
      const bool found =
          std::any_of(GetParam().words.begin(), GetParam().words.end(),
                      [&](const char* w) { return e.message().find(w) != std::string::npos; });
      EXPECT_TRUE(found) << e.message();
      EXPECT_NE(e.message().find("planted"), std::string::npos) << e.message();
      const bool placed = e.message().find("faults_cuda.cu:") != std::string::npos ||
                          e.message().find("program offset") != std::string::npos;
      EXPECT_TRUE(placed) << e.message();
      if (s.order == Order::random) {
        EXPECT_NE(e.message().find("TESSERA_SIMT_SEED=" + std::to_string(s.seed)),
                  std::string::npos);
      }
    }
  }
}

TEST_P(PlantedFault, IsSilentOnTheCorrectedTwin) {
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    EXPECT_NO_THROW(run(false));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Simt, PlantedFault,
    testing::Values(
        Planted{Fault::missing_block_barrier,
                "missing_block_barrier",
                {"race on shared", "unwritten shared"},
                true},
        Planted{Fault::missing_warp_sync, "missing_warp_sync", {"race on shared"}, true},
        Planted{Fault::divergent_barrier,
                "divergent_barrier",
                {"divergent branch", "exits while", "have exited"}},
        Planted{Fault::early_return, "early_return", {"exits while", "have exited"}},
        Planted{Fault::wrong_mask, "wrong_mask", {"masks differ", "lacks the calling lane"}},
        Planted{Fault::exited_lane, "exited_lane", {"has exited", "lane exits"}},
        Planted{Fault::divergent_shuffle, "divergent_shuffle", {"different collectives"}},
        Planted{
            Fault::shared_overflow, "shared_overflow", {"of shared memory, which has 256"}, true},
        Planted{Fault::global_past_end,
                "global_past_end",
                {"read of 4 bytes at byte 256 of a device allocation of 256"}},
        Planted{Fault::red_zone_write, "red_zone_write", {"write of 4 bytes at byte -4"}},
        Planted{Fault::unwritten_shared, "unwritten_shared", {"unwritten shared memory"}, true},
        Planted{Fault::unwritten_global, "unwritten_global", {"device memory never written"}},
        Planted{Fault::two_blocks_one_word, "two_blocks_one_word", {"race on device memory"}},
        Planted{Fault::host_pointer, "host_pointer", {"host memory"}},
        Planted{Fault::misaligned_load, "misaligned_load", {"misaligned read of 16 bytes"}},
        Planted{Fault::plain_global_write, "plain_global_write", {"of a device allocation"}, true},
        Planted{Fault::named_barrier_count,
                "named_barrier_count",
                {"thread counts differ", "deadlock"}},
        Planted{Fault::missing_async_wait, "missing_async_wait", {"unwritten shared memory"}, true},
        Planted{Fault::wrong_async_wait, "wrong_async_wait", {"unwritten shared memory"}, true},
        Planted{Fault::divergent_mma,
                "divergent_mma",
                {"different collectives", "lane exits", "has exited"}},
        Planted{
            Fault::ldmatrix_off_by_one, "ldmatrix_off_by_one", {"of shared memory, which has 256"}},
        Planted{Fault::missing_release, "missing_release", {"race on device memory"}},
        Planted{Fault::missing_acquire, "missing_acquire", {"race on device memory"}},
        Planted{Fault::unset_ticket, "unset_ticket", {"device memory never written"}},
        Planted{Fault::early_async_refill, "early_async_refill", {"race on shared"}, true},
        Planted{Fault::divergent_ldmatrix,
                "divergent_ldmatrix",
                {"different collectives", "lane exits", "has exited"}},
        Planted{Fault::misaligned_ldmatrix, "misaligned_ldmatrix", {"no multiple of 16"}},
        Planted{Fault::mixed_mma, "mixed_mma", {"different collectives"}},
        Planted{Fault::wrong_smem_bytes,
                "wrong_smem_bytes",
                {"Smem has 256 bytes, the launch gave 260"}}),
    [](const auto& each) { return std::string(each.param.name); });

TEST(Simt, ShufflesSumAWarpInEveryOrder) {
  const Buffer<float> x(ramp(64));
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    const Buffer<float> y(64);
    warp_sums(x.view(), y.view());
    const std::vector<float> sums = y.host();
    for (std::size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(sums[i], i < 32 ? 528.0F : 1552.0F);
    }
    EXPECT_EQ(last_launch().collectives, 10U);
  }
}

TEST(Simt, BarrierAndSharedMemoryReverseRaggedSizes) {
  for (const std::size_t n : {1, 31, 32, 33, 64, 65, 257}) {
    for (const Schedule s : schedules()) {
      const ScheduleGuard guard(s);
      const Buffer<float> x(ramp(n));
      const Buffer<float> y(n);
      reverse(x.view(), y.view());
      std::vector<float> expected = ramp(n);
      std::reverse(expected.begin(), expected.end());
      EXPECT_EQ(y.host(), expected) << n;
      EXPECT_EQ(last_launch().barriers, (n + 63) / 64);
      EXPECT_EQ(last_launch().bytes_read, 4 * n);
      EXPECT_EQ(last_launch().bytes_written, 4 * n);
    }
  }
}

TEST(Simt, VotesSeeEveryThread) {
  std::vector<float> values(64, -1.0F);
  values[0] = values[2] = values[63] = 1.0F;
  const Buffer<float> x(values);
  const Buffer<float> y(4);
  votes(x.view(), y.view());
  EXPECT_EQ(y.host(), (std::vector<float>{3, 0, 1, 5}));
}

TEST(Simt, CountsSectorsOfCoalescedAndStridedReads) {
  const Buffer<float> x(ramp(256));
  const Buffer<float> y(32);
  strided_copy(x.view(), y.view(), 1);
  EXPECT_EQ(last_launch().sectors_read, 4U);
  EXPECT_EQ(last_launch().sectors_written, 4U);
  strided_copy(x.view(), y.view(), 8);
  EXPECT_EQ(last_launch().sectors_read, 32U);
}

TEST(Simt, AtomicsFromAllBlocksAreNoRace) {
  const Buffer<std::int32_t> total(std::vector<std::int32_t>{0});
  count_threads(total.view());
  EXPECT_EQ(total.host()[0], 128);
}

TEST(Simt, TensorCoreTileMatchesTheNaiveProduct) {
  std::vector<std::uint16_t> a(256), b(128);
  const auto bf = [](int v) { return bf16(static_cast<float>(v)).bits; };
  for (int i = 0; i < 256; ++i) {
    a[static_cast<std::size_t>(i)] = bf(i * 7 % 19 - 9);
  }
  for (int i = 0; i < 128; ++i) {
    b[static_cast<std::size_t>(i)] = bf(i * 5 % 23 - 11);
  }
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    const Buffer<std::uint16_t> da(a), db(b);
    const Buffer<float> c(128);
    const View<const std::uint16_t, 1> va = da.view(), vb = db.view();
    tile_product(va, vb, c.view());
    const std::vector<float> got = c.host();
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 8; ++n) {
        int sum = 0;
        for (int k = 0; k < 16; ++k) {
          sum += ((m * 16 + k) * 7 % 19 - 9) * ((k * 8 + n) * 5 % 23 - 11);
        }
        EXPECT_EQ(got[static_cast<std::size_t>(m * 8 + n)], static_cast<float>(sum))
            << m << "," << n;
      }
    }
  }
}

TEST(Simt, NamedBarrierOrdersTheHandOver) {
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    const Buffer<float> x(ramp(64));
    const Buffer<float> y(64);
    named_handover(x.view(), y.view());
    EXPECT_EQ(y.host()[63], 128.0F);
  }
}

TEST(Simt, RefusesWhatNoGpuTakes) {
  const auto nothing = [](const void*) {};
  EXPECT_THROW(execute({"k", {1}, {48}, 0}, nothing, nullptr, 0), Error);
  EXPECT_THROW(execute({"k", {1}, {2048}, 0}, nothing, nullptr, 0), Error);
  EXPECT_THROW(execute({"k", {0}, {32}, 0}, nothing, nullptr, 0), Error);
  EXPECT_THROW(execute({"k", {1, 70000}, {32}, 0}, nothing, nullptr, 0), Error);
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.message();
  }
  return "nothing reported";
}

void launch_nothing() {
  execute(
      {"idle", {1}, {32}, 0}, [](const void*) {}, nullptr, 0);
}

TEST(SimtLaunch, SharedMemoryOverTheLimitOrWithoutOptInIsRefusedByName) {
  const auto nothing = [](const void*) {};
  const auto with = [&](std::size_t bytes, bool opt_in) {
    return message_of([&] { execute({"wide", {1}, {32}, bytes, opt_in}, nothing, nullptr, 0); });
  };
  EXPECT_NE(with(228 * 1024, true).find("wide: shared memory must be at most"), std::string::npos);
  EXPECT_NE(with(49 * 1024, false).find("wide: 50176 bytes of shared memory need the opt-in"),
            std::string::npos);
  EXPECT_EQ(with(227 * 1024, true), "nothing reported");
  EXPECT_EQ(with(48 * 1024, false), "nothing reported");
}

TEST(SimtMemory, UseAfterFreeIsReported) {
  const Buffer<float> x(ramp(64));
  void* gone = simt_allocate(256);
  simt_free(gone);
  const View<float, 1> y{static_cast<float*>(gone), {64}, {1}};
  const std::string text = message_of([&] { warp_sums(x.view(), y); });
  EXPECT_NE(text.find("warp_sums: write of freed device memory"), std::string::npos) << text;
  EXPECT_NE(text.find("faults_cuda.cu:"), std::string::npos) << text;
}

TEST(SimtMemory, DoubleFreeIsReportedByTheNextLaunch) {
  void* data = simt_allocate(64);
  simt_free(data);
  simt_free(data);
  const std::string text = message_of(launch_nothing);
  EXPECT_NE(text.find("double free (noticed before launch of idle)"), std::string::npos) << text;
  EXPECT_EQ(message_of(launch_nothing), "nothing reported");
}

TEST(SimtMemory, DamagedRedZoneIsFoundAtFree) {
  auto* data = static_cast<float*>(simt_allocate(64));
  {
    const DeviceMemoryOpen open;
    data[16] = 1.0F;
  }
  simt_free(data);
  const char* fault = take_memory_fault();
  ASSERT_NE(fault, nullptr);
  EXPECT_NE(std::string(fault).find("red zone"), std::string::npos);
}

TEST(SimtMemory, StartsPoisonedAndIsPoisonedAgainWhenReused) {
  for (int round = 0; round < 300; ++round) {  // past the quarantine
    const Buffer<std::uint32_t> words(1 << 16);
    const std::vector<std::uint32_t> start = words.host();
    ASSERT_TRUE(std::ranges::all_of(start, [](std::uint32_t w) { return w == kPoison; })) << round;
    const std::vector<std::uint32_t> ones(1 << 16, 1);
    simt_copy(words.data, ones.data(), 4 * ones.size());
  }
}

TEST(SimtMemory, WhatIsNotFreedIsCounted) {
  const std::size_t before = live_allocations();
  const auto kept = std::make_unique<Buffer<float>>(3);
  EXPECT_EQ(live_allocations(), before + 1);
}

using SimtMemoryDeathTest = testing::Test;

TEST(SimtMemoryDeathTest, HostAccessToDeviceMemoryEndsTheProgramNamingTheAllocation) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Buffer<float> x(ramp(64));
  EXPECT_DEATH(
      {
        volatile float value = x.data[5];
        static_cast<void>(value);
      },
      "host access to device memory, byte 20 of an allocation of 256 bytes");
}

}  // namespace
}  // namespace tessera::simt
