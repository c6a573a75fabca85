// Faults that no access check sees: wrong numbers, sums that depend on the order, missing waits
// between streams, wasted traffic. Each is caught by its detector and silent on its twin.
#include "tests/core/simt/outcomes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "core/check.h"
#include "core/simt/stream.h"
#include "tests/core/simt/support.h"

namespace tessera::simt {
namespace {

using Floats = std::vector<float>;

const std::vector<std::int32_t> kOffsets{0, 5, 5, 38, 54};  // an empty jet, one longer than a warp

Floats jet_totals(const Floats& x) {
  Floats sums;
  for (std::size_t j = 0; j + 1 < kOffsets.size(); ++j) {
    sums.push_back(std::accumulate(x.begin() + kOffsets[j], x.begin() + kOffsets[j + 1], 0.0F));
  }
  return sums;
}

/// What a kernel writes, under the schedule that is set.
Floats run_warp_sum(bool broken) {
  const Buffer<float> x(ramp(64)), y(64);
  warp_sum(broken, x.view(), y.view());
  return y.host();
}
Floats run_jet_sums(bool broken) {
  const Buffer<float> x(ramp(54)), y(4);
  const Buffer<std::int32_t> offsets(kOffsets);
  jet_sums(broken, x.view(), offsets.view(), y.view());
  return y.host();
}
// One jet a run, the others hold NaN.
Floats run_masked_mean(bool broken) {
  Floats means;
  for (std::size_t j = 0; j + 1 < kOffsets.size(); ++j) {
    Floats values(60, NAN);
    for (std::int32_t i = kOffsets[j]; i < kOffsets[j + 1]; ++i) {
      values[static_cast<std::size_t>(i)] = 1.0F + static_cast<float>(i);
    }
    const Buffer<float> x(values), y(4);
    const Buffer<std::int32_t> offsets(kOffsets);
    masked_mean(broken, x.view(), offsets.view(), y.view());
    means.push_back(y.host()[j]);
  }
  return means;
}
// Twice: the second run finds the ticket as the first left it.
Floats run_last_block(bool broken) {
  const Buffer<float> x(ramp(128)), partials(4);
  const Buffer<std::uint32_t> ticket(std::vector<std::uint32_t>{0});
  Floats totals;
  for (int run = 0; run < 2; ++run) {
    const Buffer<float> total(1);
    last_block_sum(broken, x.view(), partials.view(), ticket.view(), total.view());
    totals.push_back(total.host()[0]);
  }
  return totals;
}
Floats run_staging(bool broken) {
  const Buffer<float> x(32), y(32);
  Floats staging = ramp(32);
  void* stream = create_stream();
  copy_queued(stream, x.data, staging.data(), 128);
  scale(2, x.view(), y.view(), Stream{stream});
  if (!broken) {
    synchronize(stream);
  }
  staging.assign(32, -1.0F);  // the next batch
  destroy_stream(stream);
  return y.host();
}

Floats expected_means() {
  Floats means = jet_totals(ramp(54));
  for (std::size_t j = 0; j < means.size(); ++j) {
    const auto n = static_cast<float>(kOffsets[j + 1] - kOffsets[j]);
    means[j] = n > 0 ? means[j] / n : 0.0F;
  }
  return means;
}

Floats doubled_ramp() {
  Floats v = ramp(32);
  for (float& x : v) {
    x *= 2;
  }
  return v;
}

Floats warp_totals() {
  Floats v(64, 528.0F);
  std::fill(v.begin() + 32, v.end(), 1552.0F);
  return v;
}

struct Outcome {
  const char* name;
  Floats (*run)(bool broken);
  Floats expected;
};
void PrintTo(const Outcome& o, std::ostream* out) { *out << o.name; }

class PlantedOutcome : public testing::TestWithParam<Outcome> {};

TEST_P(PlantedOutcome, GivesAnotherResultInEveryOrder) {
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    EXPECT_NE(GetParam().run(true), GetParam().expected) << s.seed;
  }
}

TEST_P(PlantedOutcome, IsRightOnTheCorrectedTwin) {
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    EXPECT_EQ(GetParam().run(false), GetParam().expected) << s.seed;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Simt, PlantedOutcome,
    testing::Values(Outcome{"wrong_shuffle_width", run_warp_sum, warp_totals()},
                    Outcome{"key_mask_dropped", run_masked_mean, expected_means()},
                    Outcome{"accumulator_not_cleared", run_jet_sums, jet_totals(ramp(54))},
                    Outcome{"ticket_not_reset", run_last_block, {8256, 8256}},
                    Outcome{"staging_reused_early", run_staging, doubled_ramp()}),
    [](const auto& each) { return std::string(each.param.name); });

// Bits over all orders: one value for a sum with an order of its own, several otherwise.
std::set<float> totals_over_schedules(bool broken) {
  Floats values(64, 0.25F);
  values[3] = 3e7F;
  values[40] = -3e7F;
  std::set<float> seen;
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    const Buffer<float> x(values), slots(64), total(1);
    const Buffer<std::uint32_t> ticket(std::vector<std::uint32_t>{0});
    slot_sum(broken, x.view(), slots.view(), ticket.view(), total.view());
    seen.insert(total.host()[0]);
  }
  return seen;
}

TEST(SimtOrder, SumInTheOrderOfArrivalHasOtherBitsFromScheduleToSchedule) {
  EXPECT_GT(totals_over_schedules(true).size(), 1U);
  EXPECT_EQ(totals_over_schedules(false).size(), 1U);
}

// Two streams, a producer and a consumer; the host waits for the consumer only.
std::string run_two_streams(bool waits) {
  const Buffer<float> x(ramp(32)), between(32), y(32);
  void* first = create_stream();
  void* second = create_stream();
  void* event = create_event();
  scale(2, x.view(), between.view(), Stream{first});
  record_event(event, first);
  if (waits) {
    wait_event(event, second);
  }
  scale(3, between.view(), y.view(), Stream{second});
  std::string message;
  try {
    synchronize(second);
    EXPECT_EQ(y.host()[31], 192.0F);
  } catch (const Error& e) {
    message = e.message();
  }
  destroy_stream(first);
  destroy_stream(second);
  destroy_event(event);
  return message;
}

TEST(SimtStreams, MissingWaitBetweenStreamsIsReportedBySomeOrder) {
  int reports = 0;
  for (const Schedule s : schedules()) {
    const ScheduleGuard guard(s);
    const std::string message = run_two_streams(false);
    if (!message.empty()) {
      ++reports;
      EXPECT_NE(message.find("scale: read of device memory never written"), std::string::npos);
      EXPECT_NE(message.find("outcomes_cuda.cu:"), std::string::npos) << message;
    }
    EXPECT_EQ(run_two_streams(true), "") << s.seed;
  }
  EXPECT_GE(reports, 2);
}

TEST(SimtStreams, WorkRunsAtTheWaitAndNotBefore) {
  const Buffer<float> x(ramp(32)), y(32);
  void* stream = create_stream();
  scale(2, x.view(), y.view(), Stream{stream});
  EXPECT_NE(y.host(), doubled_ramp());
  synchronize(stream);
  EXPECT_EQ(y.host(), doubled_ramp());
  destroy_stream(stream);
}

TEST(SimtTraffic, UnpaddedTransposeTakes32Wavefronts) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "sanitizer builds replace the access hooks";
#endif
  const BankCounting counting;
  const Buffer<float> x(ramp(1024)), y(1024);
  transpose(false, x.view(), y.view());
  EXPECT_EQ(last_launch().wavefronts, 64U);  // 32 rows in, 32 columns out
  EXPECT_EQ(last_launch().wavefronts_ideal, 64U);
  EXPECT_EQ(y.host()[1], 33.0F);
  transpose(true, x.view(), y.view());
  EXPECT_EQ(last_launch().wavefronts, 32U + 32U * 32U);
  EXPECT_EQ(last_launch().wavefronts_ideal, 64U);
}

TEST(SimtTraffic, StridedStoreTakes32Sectors) {
  const Buffer<float> x(ramp(32)), y(256);
  spread(1, x.view(), y.view());
  EXPECT_EQ(last_launch().sectors_written, 4U);
  spread(8, x.view(), y.view());
  EXPECT_EQ(last_launch().sectors_written, 32U);
  EXPECT_EQ(last_launch().bytes_written, 128U);
}

TEST(SimtTraffic, CountsTensorInstructionsExponentialsAndAtomics) {
  const Buffer<float> y(32);
  tensor_work(7, y.view());
  EXPECT_EQ(last_launch().mma, 7U);
  EXPECT_EQ(last_launch().exponentials, 7U * 32U);
  const Buffer<float> x(ramp(64)), slots(64), total(1);
  const Buffer<std::uint32_t> ticket(std::vector<std::uint32_t>{0});
  slot_sum(false, x.view(), slots.view(), ticket.view(), total.view());
  EXPECT_EQ(last_launch().atomics, 64U);
}

TEST(SimtReport, HasOneLineForEachKernel) {
  const Buffer<float> y(32);
  tensor_work(2, y.view());
  const std::string text = report();
  EXPECT_NE(text.find("\ntensor_work "), std::string::npos) << text;
}

}  // namespace
}  // namespace tessera::simt
