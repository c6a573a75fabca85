// The schedules of simt by number, for tests that walk over several.
#pragma once

#include <cstdint>

#include "core/simt/executor.h"

namespace tessera {

/// 0 forward, 1 reverse, beyond them random with this seed.
inline simt::Schedule schedule_of(std::uint64_t seed) {
  return {seed == 0   ? simt::Order::forward
          : seed == 1 ? simt::Order::reverse
                      : simt::Order::random,
          seed};
}

}  // namespace tessera
