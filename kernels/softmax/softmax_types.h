// What host and device units of softmax share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

enum class SoftmaxKind : std::uint8_t { probability, logarithm };

}  // namespace tessera
