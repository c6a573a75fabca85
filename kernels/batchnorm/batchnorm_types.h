// What host and device units of batchnorm share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

inline constexpr std::int64_t kBatchNormBlock = 256;  ///< rows of one partial sum

}  // namespace tessera
