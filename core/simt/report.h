// The counters of all launches, kernel by kernel. TESSERA_SIMT_ENTRIES=FILE in the environment adds
// to a file the addresses of the kernels that a program launched, as its symbol table has them.
#pragma once

#include <string>
#include <vector>

#include "core/simt/executor.h"

namespace tessera::simt {

/// One launch that ended well.
struct Launched {
  std::string kernel;  ///< as the launch calls it
  const void* entry;   ///< its code
  Dim3 grid, block;
  std::size_t smem_bytes;
  LaunchStats stats;
};

/// Keeps the launches of this thread for a scope, in order.
class LaunchLog {
 public:
  LaunchLog();
  ~LaunchLog();
  LaunchLog(const LaunchLog&) = delete;
  LaunchLog& operator=(const LaunchLog&) = delete;
  [[nodiscard]] const std::vector<Launched>& launches() const { return launches_; }

 private:
  friend void add_to_report(const Geometry& geometry, const LaunchStats& stats);
  std::vector<Launched> launches_;
  LaunchLog* outer_;
};

/// All counters, for loops over them.
inline constexpr std::uint64_t LaunchStats::*kCounters[] = {&LaunchStats::bytes_read,
                                                            &LaunchStats::bytes_written,
                                                            &LaunchStats::sectors_read,
                                                            &LaunchStats::sectors_written,
                                                            &LaunchStats::unique_sectors_read,
                                                            &LaunchStats::unique_sectors_written,
                                                            &LaunchStats::barriers,
                                                            &LaunchStats::collectives,
                                                            &LaunchStats::switches,
                                                            &LaunchStats::mma,
                                                            &LaunchStats::mma_k8,
                                                            &LaunchStats::exponentials,
                                                            &LaunchStats::special_functions,
                                                            &LaunchStats::extrema,
                                                            &LaunchStats::fused,
                                                            &LaunchStats::atomics,
                                                            &LaunchStats::async_bytes,
                                                            &LaunchStats::wavefronts,
                                                            &LaunchStats::wavefronts_ideal};
static_assert(sizeof(kCounters) / sizeof(kCounters[0]) * sizeof(std::uint64_t) ==
                  sizeof(LaunchStats),
              "every counter is added up");

/// Counter by counter.
LaunchStats& operator+=(LaunchStats& sum, const LaunchStats& s);

void add_to_report(const Geometry& geometry, const LaunchStats& stats);

}  // namespace tessera::simt
