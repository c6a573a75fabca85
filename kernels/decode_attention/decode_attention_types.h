// What host and device units of decode_attention share; no host header is reachable from here.
#pragma once

#include <cstdint>

namespace tessera {

/// Extents of a step and where its rows go; pointers are those of the device that runs the kernel.
struct DecodeLayout {
  std::int64_t rows, heads, width, capacity;
  float scale;
  const std::int32_t* slots;      // (rows)
  const std::int32_t* positions;  // (rows)
};

}  // namespace tessera
