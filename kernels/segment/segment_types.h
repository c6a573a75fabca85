// What host and device units of segment share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

enum class Pool : std::uint8_t { sum, mean, max };

}  // namespace tessera
