// What host and device units of adamw share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

/// What the update of one span needs, bias corrections folded in.
struct AdamWUpdate {
  float clip, decay, beta1, beta2, step_size, root_correction, eps;
};

/// Elements of one partial sum of the norm.
inline constexpr std::int64_t kSquaredNormBlock = 4096;

}  // namespace tessera
