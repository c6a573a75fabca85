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

/// DRAM traffic: sectors at first touch against the bytes that a formula gives.
inline void expect_dram_bytes(const simt::LaunchStats& s, double read, double written,
                              double slack = 1.1) {
  detail::expect_at_most("bytes of unique sectors read", 32 * s.unique_sectors_read, read, slack);
  detail::expect_at_most("bytes of unique sectors written", 32 * s.unique_sectors_written, written,
                         slack);
  // A kernel that skips part of its work is no faster one. Sectors are whole, so never below.
  EXPECT_GE(32.0 * static_cast<double>(s.unique_sectors_read), read);
  EXPECT_GE(32.0 * static_cast<double>(s.unique_sectors_written), written);
}

/// Coalescing: all sectors over those that the requested bytes need.
inline void expect_coalesced(const simt::LaunchStats& s, double slack = 1.1) {
  detail::expect_at_most("bytes of sectors read", 32 * s.sectors_read,
                         static_cast<double>(s.bytes_read), slack);
  detail::expect_at_most("bytes of sectors written", 32 * s.sectors_written,
                         static_cast<double>(s.bytes_written), slack);
}

/// Bank conflicts: wavefronts over the least possible. Needs launches_of or BankCounting.
inline void expect_few_wavefronts(const simt::LaunchStats& s, double slack = 1.1) {
  detail::expect_at_most("wavefronts", s.wavefronts, static_cast<double>(s.wavefronts_ideal),
                         slack);
}

}  // namespace tessera
