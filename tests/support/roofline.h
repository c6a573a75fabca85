// A roofline as a test: the counters of a launch on simt against formulas in terms of shapes.
#pragma once

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "core/simt/report.h"
#include "tests/support/hardware.h"

namespace tessera {

/// The launches of work(), in order, wavefronts counted. A queued launch counts when it runs.
template <class Work>
std::vector<simt::Launched> launches_of(Work&& work) {
  const simt::BankCounting banks;
  const simt::LaunchLog log;
  std::forward<Work>(work)();
  return log.launches();
}

/// The sum over them.
inline simt::LaunchStats total_of(const std::vector<simt::Launched>& launches) {
  simt::LaunchStats sum;
  for (const simt::Launched& one : launches) {
    sum += one.stats;
  }
  return sum;
}

namespace detail {
inline void expect_at_most(const char* what, std::uint64_t got, double ideal, double slack) {
  EXPECT_LE(static_cast<double>(got), slack * ideal)
      << what << ": " << got << " over " << ideal << ", allowed " << slack;
}
}  // namespace detail

/// DRAM traffic: sectors at first touch against the bytes that a formula gives; a sector more at
/// either end of an array.
inline void expect_dram_bytes(const simt::LaunchStats& s, double read, double written,
                              double slack = 1.1) {
  constexpr double kEnds = 64;
  const auto check = [&](const char* what, std::uint64_t sectors, double bytes) {
    const double got = 32.0 * static_cast<double>(sectors);
    EXPECT_LE(got, slack * bytes + kEnds) << what << ", by formula " << bytes;
    EXPECT_GE(got, bytes) << what << ": sectors are whole, part of the work is missing";
  };
  check("bytes of unique sectors read", s.unique_sectors_read, read);
  check("bytes of unique sectors written", s.unique_sectors_written, written);
}

/// Coalescing: all sectors over those that the requested bytes need, reads and writes together, so
/// that the one word of a block's result does not weigh more than its inputs.
inline void expect_coalesced(const simt::LaunchStats& s, double slack = 1.1) {
  detail::expect_at_most("bytes of sectors", 32 * (s.sectors_read + s.sectors_written),
                         static_cast<double>(s.bytes_read + s.bytes_written), slack);
}

/// Bank conflicts: wavefronts over the least possible. Needs launches_of or BankCounting.
inline void expect_few_wavefronts(const simt::LaunchStats& s, double slack = 1.1) {
  detail::expect_at_most("wavefronts", s.wavefronts, static_cast<double>(s.wavefronts_ideal),
                         slack);
}

}  // namespace tessera
