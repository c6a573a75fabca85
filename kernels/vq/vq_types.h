// What host and device units of vq share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

/// Elements of one partial sum of the loss.
inline constexpr std::int64_t kVqBlock = 1024;

/// What backward takes of the options: shares of output gradient and codebook term, 2 / (T D).
struct VqSlopes {
  float nu, beta, unit;
};

}  // namespace tessera
