// The counters of all launches, kernel by kernel.
#pragma once

#include <string>
#include <vector>

#include "core/simt/executor.h"

namespace tessera::simt {

/// One launch that ended well.
struct Launched {
  std::string kernel;
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

/// Counter by counter.
LaunchStats& operator+=(LaunchStats& sum, const LaunchStats& s);

void add_to_report(const Geometry& geometry, const LaunchStats& stats);

}  // namespace tessera::simt
