// What host and device units of elementwise share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

/// How two numbers combine.
enum class Pointwise : std::uint8_t { sum, product };

}  // namespace tessera
