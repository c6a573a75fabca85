// The counters of all launches, kernel by kernel.
#pragma once

#include "core/simt/executor.h"

namespace tessera::simt {

void add_to_report(const char* kernel, const LaunchStats& stats);

}  // namespace tessera::simt
