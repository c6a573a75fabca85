// The loops of core over runs of floats, at the widest SIMD level of the machine.
#pragma once

#include <cstdint>

namespace tessera {

/// y += x, n floats.
void add_run(const float* x, float* y, std::int64_t n);

}  // namespace tessera
