// What host and device units of reduce share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

/// Elements of one partial sum on devices.
inline constexpr std::int64_t kSumBlock = 16384;

}  // namespace tessera
