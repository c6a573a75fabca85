// What host and device units of gather share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

/// Keys that a warp ranks among themselves when a device sorts.
inline constexpr std::int64_t kSortChunk = 512;

}  // namespace tessera
